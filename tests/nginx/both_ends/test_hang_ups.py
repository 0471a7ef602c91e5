from tests.nginx.test_hang_ups import *  # noqa: F403 - with the gateway of this directory
