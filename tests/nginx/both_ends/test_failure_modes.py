from tests.nginx.test_failure_modes import *  # noqa: F403 - with the gateway of this directory
