from tests.nginx.test_usage import *  # noqa: F403 - with the gateway of this directory
