"""Facts of certificates, read by another implementation (pyca/cryptography): a JSON array, one object a certificate.

certificate.py FILE      a file of PEM certificates; each is also checked against the last one in the file as its issuer
"""

import json
import sys

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID

KNOWN = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.NAME_CONSTRAINTS,
}
USES = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
USES += ["key_cert_sign", "crl_sign"]


def extension(certificate, kind):
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def facts(certificate, issuer):
    basic = extension(certificate, x509.BasicConstraints)
    usage = extension(certificate, x509.KeyUsage)
    extended = extension(certificate, x509.ExtendedKeyUsage)
    names = extension(certificate, x509.SubjectAlternativeName)
    subject_key = extension(certificate, x509.SubjectKeyIdentifier)
    authority_key = extension(certificate, x509.AuthorityKeyIdentifier)
    try:
        certificate.verify_directly_issued_by(issuer)
        signed = True
    except Exception as error:  # the reason matters less than that it is not
        signed = str(error) or type(error).__name__
    key = certificate.public_key()
    return {
        "version": certificate.version.name,
        "subject": certificate.subject.rfc4514_string(),
        "serial_bits": certificate.serial_number.bit_length(),
        "signed_by_issuer": signed,
        "self_issued": certificate.subject == certificate.issuer,
        "key": key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else f"rsa-{key.key_size}",
        "uris": names.value.get_values_for_type(x509.UniformResourceIdentifier) if names else [],
        "dns": names.value.get_values_for_type(x509.DNSName) if names else [],
        "san_critical": bool(names and names.critical),
        "ca": basic.value.ca if basic else None,
        "basic_critical": bool(basic and basic.critical),
        "usage": [use for use in USES if usage and getattr(usage.value, use)],
        "usage_critical": bool(usage and usage.critical),
        "extended": sorted(oid.dotted_string for oid in extended.value) if extended else None,
        "subject_key": subject_key.value.digest.hex() if subject_key else None,
        "authority_key": authority_key.value.key_identifier.hex() if authority_key else None,
        "unknown_critical": [e.oid.dotted_string for e in certificate.extensions if e.critical and e.oid not in KNOWN],
        "not_before": certificate.not_valid_before_utc.timestamp(),
        "not_after": certificate.not_valid_after_utc.timestamp(),
        "issuer_not_after": issuer.not_valid_after_utc.timestamp(),
    }


with open(sys.argv[1], "rb") as file:
    chain = x509.load_pem_x509_certificates(file.read())
print(json.dumps([facts(certificate, chain[-1]) for certificate in chain]))
