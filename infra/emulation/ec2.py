"""EC2 as `drover doctor` and pools with shapes expect it, in front of ministack, which does not know four things:

- dry runs: it would launch a machine;
- images that are named by a parameter (resolve:ssm:);
- the account's key for volumes, which here is that of AWS;
- instance types, where they are offered, and spot prices.
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

# Name, vCPUs, MiB, architecture and spot price in USD per hour.
TYPES = (
    ("m7i.large", 2, 8192, "x86_64", 0.04),
    ("m7i.xlarge", 4, 16384, "x86_64", 0.08),
    ("m8g.large", 2, 8192, "arm64", 0.03),
    ("m8g.xlarge", 4, 16384, "arm64", 0.06),
)


def described(action, zones):
    """The answer to a question about instance types; None to any other."""
    offered = [(it, zone) for it in TYPES for zone in zones]
    match action:
        case "DescribeInstanceTypes":
            name = "instanceTypeSet"
            items = [
                f"<instanceType>{name}</instanceType><currentGeneration>true</currentGeneration>"
                "<bareMetal>false</bareMetal><burstablePerformanceSupported>false</burstablePerformanceSupported>"
                "<processorInfo><supportedArchitectures>"
                f"<item>{architecture}</item></supportedArchitectures></processorInfo>"
                f"<vCpuInfo><defaultVCpus>{vcpus}</defaultVCpus></vCpuInfo>"
                f"<memoryInfo><sizeInMiB>{mib}</sizeInMiB></memoryInfo>"
                for name, vcpus, mib, architecture, _ in TYPES
            ]
        case "DescribeInstanceTypeOfferings":
            name = "instanceTypeOfferingSet"
            items = [
                f"<instanceType>{it[0]}</instanceType><locationType>availability-zone</locationType>"
                f"<location>{zone}</location>"
                for it, zone in offered
            ]
        case "DescribeSpotPriceHistory":
            name = "spotPriceHistorySet"
            items = [
                f"<instanceType>{it[0]}</instanceType><productDescription>Linux/UNIX</productDescription>"
                f"<spotPrice>{it[4]:.6f}</spotPrice><timestamp>2026-11-01T00:00:00.000Z</timestamp>"
                f"<availabilityZone>{zone}</availabilityZone>"
                for it, zone in offered
            ]
        case _:
            return None
    content = "".join(f"<item>{item}</item>" for item in items)
    return (
        f'<{action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        f"<requestId>00000000-0000-0000-0000-000000000000</requestId><{name}>{content}</{name}></{action}Response>"
    )


class Ec2:
    """Listens on a free port. `parameter` returns the value of an SSM parameter; `zones` have every instance type."""

    def __init__(self, endpoint, parameter, zones):
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
                if answer := described(asked.get("Action"), zones):
                    return self.answer(200, "text/xml", answer.encode())
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
