"""Validates a JWT-SVID with PyJWT against a SPIFFE bundle file and prints its header and claims as JSON.

verify_jwt.py BUNDLE AUDIENCE TOKEN
"""

import json
import sys

import jwt

with open(sys.argv[1]) as file:
    entries = json.load(file)["keys"]
header = jwt.get_unverified_header(sys.argv[3])
(entry,) = [entry for entry in entries if entry["use"] == "jwt-svid" and entry["kid"] == header["kid"]]
# PyJWT knows no use but sig and enc: the key itself is what it is asked about.
key = jwt.PyJWK({name: value for name, value in entry.items() if name != "use"}, algorithm=header["alg"])
claims = jwt.decode(sys.argv[3], key, algorithms=[header["alg"]], audience=sys.argv[2], options={"require": ["exp", "aud", "sub"]})
print(json.dumps({"header": header, "claims": claims}))
