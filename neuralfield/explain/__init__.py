"""Why an encoding works on an image, and how far it will get, before a step is made."""
