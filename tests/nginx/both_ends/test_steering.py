from tests.nginx.test_steering import *  # noqa: F403 - with the gateway of this directory
