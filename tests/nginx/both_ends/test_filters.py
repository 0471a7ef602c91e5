from tests.nginx.test_filters import *  # noqa: F403 - with the gateway of this directory
