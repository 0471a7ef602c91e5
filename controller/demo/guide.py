"""What the terminal shows once the demo runs."""

import shlex
from pathlib import Path
from textwrap import dedent

from controller.demo.files import ROUTES
from controller.demo.servers import MODEL


def guide(*, port: int, directory: Path, access_log: Path) -> str:
    """Where everything is, and a command to paste for each scene."""
    url = f"http://127.0.0.1:{port}"
    chat = (
        f"""-d '{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "Say hello."}}], "max_tokens": 20}}'"""
    )
    return dedent(f"""
        The gateway answers on {url}
        Resources   {directory}/  (edit them: each change is live when it is saved)
        Access log  {access_log}

        1. Model-aware routing: audio goes to `cpu`, whatever model is asked for. See x-demo-pool.
           curl -i {url}/v1/audio/transcriptions -F model={MODEL} -F 'file=hello;filename=hello.wav'

        2. Canary: nine in ten chats go to `gpu`, one to `cpu`; in each pool the picker takes the best pod.
           for i in $(seq 30); do curl -si {url}/v1/chat/completions {chat} | grep -i x-demo-pool; done | sort | uniq -c

        3. Serving priority: what is marked as complex goes to `gpu`, the rest to `cpu`.
           curl -i {url}/priority/v1/chat/completions -H 'X-Query-Complexity: high' {chat}
           curl -i {url}/priority/v1/chat/completions {chat}

        4. Instant change: edit a weight, and read here which file, what changed, and in how many ms it was live.
           sed -i 's/weight: 90/weight: 50/' {shlex.quote(str(directory / ROUTES))}

        Ctrl-C ends everything.

        """)
