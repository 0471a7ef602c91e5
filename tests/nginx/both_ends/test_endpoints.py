from tests.nginx.test_endpoints import *  # noqa: F403 - with the gateway of this directory
