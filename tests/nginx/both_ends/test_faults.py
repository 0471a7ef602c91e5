from tests.nginx.test_faults import *  # noqa: F403 - with the gateway of this directory
