# What the page takes as given: PyNaCl, and a secret in a file.
printf sk_test_not_a_real_key > secret.txt
if ! python3 -c 'import nacl' 2>/dev/null; then
    venv=$DOCS_FILES/../../target/pynacl
    if [ ! -e "$venv/is_whole" ]; then
        python3 -m venv --clear "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check pynacl==1.5.0
        touch "$venv/is_whole"
    fi
    PATH=$venv/bin:$PATH
fi
