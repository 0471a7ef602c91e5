from tests.nginx.test_rewrites import *  # noqa: F403 - with the gateway of this directory
