# What the page takes as given: PyNaCl, and a secret in a file.
printf sk_test_not_a_real_key > secret.txt
python3 -c 'import nacl' 2>/dev/null || {
    python3 -m venv nacl && nacl/bin/pip install -q pynacl && PATH=$PWD/nacl/bin:$PATH
}
