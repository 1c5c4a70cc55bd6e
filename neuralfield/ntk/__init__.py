"""The neural tangent kernel of a field: at infinite width, of the actual weights, and what gradient descent makes of it."""
