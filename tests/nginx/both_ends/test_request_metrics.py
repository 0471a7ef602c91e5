from tests.nginx.test_request_metrics import *  # noqa: F403 - with the gateway of this directory
