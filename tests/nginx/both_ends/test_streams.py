from tests.nginx.test_streams import *  # noqa: F403 - with the gateway of this directory
