"""What a Python workload sees through py-spiffe: one line of JSON for each event.

workload.py SOCKET AUDIENCE      fetches both kinds of SVID, validates the token offline with PyJWT, then reports each
                                 rotation of the X.509 source until it is stopped
"""

import json
import sys
import time

import jwt
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import WorkloadApiClient, X509Source


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def serial_of(svid):
    return format(svid.leaf.serial_number, "x")


def main(socket, audience):
    with WorkloadApiClient(socket_path=socket) as client:
        svid = client.fetch_x509_svid()
        tell("x509", id=str(svid.spiffe_id), serial=serial_of(svid), chain=len(svid.cert_chain))
        bundles = client.fetch_x509_bundles()
        tell("bundles", domains=[bundle.trust_domain.name for bundle in bundles.bundles])
        token = client.fetch_jwt_svid(audience={audience})
        validated = client.validate_jwt_svid(token=token.token, audience=audience)
        tell("jwt", id=str(token.spiffe_id), validated=str(validated.spiffe_id))

        keys = {}
        for bundle in client.fetch_jwt_bundles().bundles:
            keys.update(bundle.jwt_authorities)
        header = jwt.get_unverified_header(token.token)
        claims = jwt.decode(token.token, keys[header["kid"]], algorithms=[header["alg"]], audience=audience)
        tell("pyjwt", sub=claims["sub"], alg=header["alg"])

    with X509Source(socket_path=socket) as source:
        last = None
        while True:
            serial = serial_of(source.svid)
            if serial != last:
                tell("update", id=str(source.svid.spiffe_id), serial=serial)
                last = serial
            time.sleep(0.1)


main(sys.argv[1], sys.argv[2])
