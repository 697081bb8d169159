"""The X.509 contexts that a Python workload sees through py-spiffe, until it is stopped: watch.py SOCKET

One line of JSON for each: the identities (with hints where this version of py-spiffe tells them), the trust domains whose bundles came, or why the stream broke.
"""

import json
import sys
import threading

from spiffe import WorkloadApiClient


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def updated(context):
    svids = [{"id": str(svid.spiffe_id), "hint": getattr(svid, "hint", None)} for svid in context.x509_svids]
    domains = {bundle.trust_domain.name: len(bundle.x509_authorities) for bundle in context.x509_bundle_set.bundles}
    tell("update", svids=svids, bundles=domains)


with WorkloadApiClient(socket_path=sys.argv[1]) as client:
    client.stream_x509_contexts(on_success=updated, on_error=lambda error: tell("lost", message=str(error)))
    threading.Event().wait()
