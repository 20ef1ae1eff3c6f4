#!/usr/bin/env bash
# Makes the image trust private CAs. Needs CA_CERTIFICATES: base64, separated by commas; may be empty. Runs first, because
# the other scripts download through a proxy that may have a certificate of such a CA.
set -euo pipefail

number=0
for certificate in ${CA_CERTIFICATES//,/ }; do
	number=$((number + 1))
	{
		echo "-----BEGIN CERTIFICATE-----"
		fold --width 64 <<<"$certificate"
		echo "-----END CERTIFICATE-----"
	} >"/usr/local/share/ca-certificates/drover-$number.crt"
done
[ "$number" -eq 0 ] || update-ca-certificates
