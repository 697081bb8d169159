"""Validates a WIT-SVID with PyJWT against a SPIFFE bundle file, and its proof against the key in it; prints both as JSON.

verify_wit.py BUNDLE AUDIENCE TOKEN PROOF
"""

import base64
import hashlib
import json
import sys

import jwt

bundle, audience, token, proof = sys.argv[1:]
with open(bundle) as file:
    entries = json.load(file)["keys"]
header = jwt.get_unverified_header(token)
(entry,) = [entry for entry in entries if entry["use"] == "wit-svid" and entry["kid"] == header["kid"]]
# PyJWT knows no use but sig and enc: the key itself is what it is asked about.
key = jwt.PyJWK({name: value for name, value in entry.items() if name != "use"}, algorithm=header["alg"])
claims = jwt.decode(token, key, algorithms=[header["alg"]], options={"require": ["exp", "sub", "cnf"]})
bound = claims["cnf"]["jwk"]
proved = jwt.decode(
    proof, jwt.PyJWK(bound), algorithms=[bound["alg"]], audience=audience, options={"require": ["exp", "aud", "jti"]}
)
wth = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
if proved["wth"] != wth:
    sys.exit("the proof is of another token")
print(json.dumps({"header": header, "claims": claims, "proof": proved, "type": jwt.get_unverified_header(proof)["typ"]}))
