from tests.nginx.test_error_shapes import *  # noqa: F403 - with the gateway of this directory
