from tests.nginx.test_retries import *  # noqa: F403 - with the gateway of this directory
