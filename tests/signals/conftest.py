"""What the tests of image files share."""

import pytest

from neuralfield.signals.reading import read_image


@pytest.fixture
def read(tmp_path):
    """Write bytes into a file (without an extension: formats are recognised by content) and read them."""

    def write_and_read(data, frame=None):
        path = tmp_path / "picture"
        path.write_bytes(bytes(data))
        return read_image(path, frame)

    return write_and_read
