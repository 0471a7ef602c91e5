from tests.nginx.test_session_tokens import *  # noqa: F403 - with the gateway of this directory
