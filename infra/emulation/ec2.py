"""EC2 as `drover doctor` expects it, in front of ministack, which does not know three things:

- dry runs: it would launch a machine;
- images that are named by a parameter (resolve:ssm:);
- the account's key for volumes, which here is that of AWS.
"""

import contextlib
import http.server
import threading
import urllib.error
import urllib.parse
import urllib.request

DRY_RUN = """<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>DryRunOperation</Code>\
<Message>Request would have succeeded, but DryRun flag is set.</Message></Error></Errors>\
<RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"""

DEFAULT_KEY = """<?xml version="1.0" encoding="UTF-8"?>
<GetEbsDefaultKmsKeyIdResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">\
<requestId>00000000-0000-0000-0000-000000000000</requestId><kmsKeyId>alias/aws/ebs</kmsKeyId>\
</GetEbsDefaultKmsKeyIdResponse>"""


class Ec2:
    """Listens on a free port. `parameter` returns the value of an SSM parameter."""

    def __init__(self, endpoint, parameter):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
                asked = dict(urllib.parse.parse_qsl(body))
                if asked.get("DryRun") == "true":
                    return self.answer(412, "text/xml", DRY_RUN.encode())
                if asked.get("Action") == "GetEbsDefaultKmsKeyId":
                    return self.answer(200, "text/xml", DEFAULT_KEY.encode())
                for name, value in asked.items():
                    if name.startswith("ImageId") and value.startswith("resolve:ssm:"):
                        asked[name] = parameter(value.removeprefix("resolve:ssm:"))
                        body = urllib.parse.urlencode(asked)
                headers = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() not in ("content-length", "connection")
                }
                request = urllib.request.Request(endpoint + self.path, data=body.encode(), headers=headers)
                try:
                    with urllib.request.urlopen(request, timeout=60) as answer:
                        self.answer(answer.status, answer.headers["content-type"], answer.read())
                except urllib.error.HTTPError as error:
                    self.answer(error.code, error.headers["content-type"], error.read())

            def answer(self, status, content_type, data):
                # On a busy machine drover has given up, and asks again.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.send_response(status)
                    self.send_header("content-type", content_type)
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
