"""Starts moto's server, an emulator of AWS's API. It accepts every signature and enforces no policy."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import boto3

REGION = "eu-central-1"

# SAM's translator needs a region, too.
os.environ.setdefault("AWS_DEFAULT_REGION", REGION)


def ubuntu(number, architecture):
    """The description of an official Ubuntu image, in the emulator's format."""
    return {
        "ami_id": f"ami-{number:017x}",
        "name": f"ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{architecture}-server-20261101",
        "description": "Canonical, Ubuntu, 24.04 LTS",
        "owner_id": "099720109477",
        "public": True,
        "state": "available",
        "virtualization_type": "hvm",
        "architecture": "arm64" if architecture == "arm64" else "x86_64",
        "platform": None,
        "image_type": "machine",
        "hypervisor": "xen",
        "root_device_name": "/dev/sda1",
        "root_device_type": "ebs",
        "sriov": "simple",
    }


class Emulator:
    """moto's server on a free port, with a method that makes clients for it."""

    def __enter__(self):
        self.images = tempfile.NamedTemporaryFile("w", suffix=".json")
        json.dump([ubuntu(1, "amd64"), ubuntu(2, "arm64")], self.images)
        self.images.flush()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            **os.environ,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "emulator",
            "AWS_SECRET_ACCESS_KEY": "emulator",
            "AWS_REGION": REGION,
            "MOTO_AMIS_PATH": self.images.name,
        }
        server = pathlib.Path(sys.executable).with_name("moto_server")
        self.process = subprocess.Popen(
            [server, "--host", "127.0.0.1", "--port", str(port)],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=1).read()
                return self
            except OSError:
                time.sleep(0.1)
        self.process.kill()
        raise RuntimeError("moto did not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.images.close()

    def client(self, service):
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="emulator",
            aws_secret_access_key="emulator",
        )
