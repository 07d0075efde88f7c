//! Who lets us in, and what he gets to know for it.

use super::*;

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b.iter().cycle()).map(|(a, b)| a ^ b).collect()
}

fn hash(how: &'static ring::digest::Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    digest(how, &parts.concat()).as_ref().to_vec()
}

/// As MySQL's manual has it: XOR(SHA256(password), SHA256(SHA256(SHA256(password)), nonce)).
fn sha2_proof() -> Vec<u8> {
    let once = hash(&SHA256, &[PASSWORD.as_bytes()]);
    let twice = hash(&SHA256, &[&once]);
    xor(&once, &hash(&SHA256, &[&twice, NONCE]))
}

/// The same of native passwords: XOR(SHA1(password), SHA1(nonce, SHA1(SHA1(password)))).
fn native_proof() -> Vec<u8> {
    let once = hash(&SHA1, &[PASSWORD.as_bytes()]);
    let twice = hash(&SHA1, &[&once]);
    xor(&once, &hash(&SHA1, &[NONCE, &twice]))
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_known_proof_logs_in_at_once() {
    for (way, proof) in [
        ("caching_sha2_password", sha2_proof()),
        ("mysql_native_password", native_proof()),
    ] {
        let (wire, mut other) = pair();
        let serving = tokio::spawn(async move {
            other.send(0, &hello(way)).await;
            let (number, login) = other.read().await;
            assert_eq!(number, 1);
            let proof = [&[proof.len() as u8], proof.as_slice()].concat();
            assert!(contains(
                &login,
                &[b"reader\0", proof.as_slice(), b"shop\0"].concat()
            ));
            // Neither local files (0x80) nor compression, nor several statements or results at once.
            let asked = u32::from_le_bytes([login[0], login[1], login[2], login[3]]);
            assert_eq!(asked & 0x0107_00a0, 0);
            match way {
                "caching_sha2_password" => {
                    other.send(2, &[1, 3]).await;
                    other.send(3, OK).await;
                }
                _ => other.send(2, OK).await,
            }
        });
        let in_at = login(wire, &server(Tls::Off), LIMITS.response_bytes).await;
        serving.await.unwrap();
        assert!(in_at.is_ok(), "{way}");
    }
}

#[tokio::test]
async fn the_authentication_plugin_may_change_once() {
    // Their nonces come anew. One of ed25519 may end with a zero.
    let nonce: Vec<u8> = (0..31).rev().chain([0]).collect();
    let (wire, mut other) = pair();
    let asked = [b"\xfeclient_ed25519\0", nonce.as_slice()].concat();
    let serving = tokio::spawn(async move {
        other.send(0, &hello("mysql_native_password")).await;
        other.read().await;
        other.send(2, &asked).await;
        let (number, proof) = other.read().await;
        assert_eq!(number, 3);
        other.send(4, &asked).await;
        proof
    });
    let mut server = server(Tls::Off);
    // The server's keys are made as those of a seed, which has this length.
    let password = "not_a_real_password_of_32_bytes_";
    server.password = Some(Secret::new(password.into()));
    let refused = login(wire, &server, LIMITS.response_bytes).await;
    let proof = serving.await.unwrap();
    let keys = Ed25519KeyPair::from_seed_unchecked(password.as_bytes()).unwrap();
    let public = keys.public_key().as_ref();
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
    public
        .verify(&(0..31).rev().chain([0]).collect::<Vec<u8>>(), &proof)
        .unwrap();
    // It asked again.
    assert_eq!(code(refused), Code::ConnectFailed);
}

#[tokio::test]
async fn unsafe_or_unknown_authentication_plugins_are_refused() {
    for asked in [
        b"\xfe".as_slice(),
        b"\xfemysql_clear_password\0",
        b"\xfemysql_old_password\0abcdefgh\0",
        b"\xfesha256_password\0abcdefghijklmnopqrst\0",
        b"\xfeparsec\0abcdefghijklmnopqrstabcdefghijkl",
    ] {
        let (wire, mut other) = pair();
        other.send(0, &hello("caching_sha2_password")).await;
        other.send(2, asked).await;
        let refused = login(wire, &server(Tls::Off), LIMITS.response_bytes).await;
        assert_eq!(code(refused), Code::CredentialsRejected, "{asked:?}");
    }
    // One that we know, without a nonce.
    let (wire, mut other) = pair();
    other.send(0, &hello("caching_sha2_password")).await;
    other.send(2, b"\xfemysql_native_password\0abc").await;
    let refused = login(wire, &server(Tls::Off), LIMITS.response_bytes).await;
    assert_eq!(code(refused), Code::ConnectFailed);
}

#[tokio::test]
async fn a_server_without_tls_or_with_early_data_gets_no_password() {
    let (wire, mut other) = pair();
    other.send(0, &hello("caching_sha2_password")).await;
    let refused = login(wire, &server(Tls::Verify { ca: None }), 1).await;
    assert_eq!(code(refused), Code::TlsFailed);
    // It can do TLS, and has already said what is to count as said in it.
    let (wire, mut other) = pair();
    let mut can = hello("caching_sha2_password");
    can[21] |= 0x08;
    other.send(0, &can).await;
    other.send(2, OK).await;
    let refused = login(wire, &server(Tls::Verify { ca: None }), 1).await;
    assert_eq!(code(refused), Code::ConnectFailed);
    let (_, asked) = other.read().await;
    assert_eq!(asked.len(), 32, "nothing but that it be TLS");
    // Some servers take what is asked for from here: a database (0x08), TLS, and a way of logging in.
    let asked = u32::from_le_bytes([asked[0], asked[1], asked[2], asked[3]]);
    assert_eq!(asked & 0x0008_0808, 0x0008_0808);
}

fn proof(is_secure: bool) -> Proof<'static> {
    Proof {
        password: PASSWORD,
        is_secure,
        way: AuthPlugin::CachingSha2Password,
        nonce: NONCE.to_vec(),
    }
}

#[tokio::test]
async fn a_clear_text_password_is_only_sent_inside_tls() {
    let (mut wire, mut other) = pair();
    let serving = tokio::spawn(async move {
        other.send(0, &[1, 4]).await;
        let (_, told) = other.read().await;
        other.send(2, OK).await;
        told
    });
    proof(true).give(&mut wire).await.unwrap();
    let told = serving.await.unwrap();
    assert_eq!(told, [PASSWORD.as_bytes(), &[0]].concat());
}

fn der(kind: u8, contents: &[u8]) -> Vec<u8> {
    let length = (contents.len() as u16).to_be_bytes();
    [&[kind, 0x82], length.as_slice(), contents].concat()
}

pub(super) fn pem(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let numbers = [der(2, &[&[0], modulus].concat()), der(2, exponent)].concat();
    let bits = [&[0], der(0x30, &numbers).as_slice()].concat();
    let info = [der(0x30, b"\x06\x01\x01\x05\0"), der(3, &bits)].concat();
    let text = STANDARD.encode(der(0x30, &info));
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n").into_bytes()
}

/// Two of Mersenne's primes make a key of 1128 bits that anybody can open.
fn primes() -> (BigUint, BigUint) {
    let prime = |bits: u32| BigUint::from(2_u8).pow(bits) - 1_u8;
    (prime(521), prime(607))
}

/// RFC 8017, 7.1.2: what was encrypted with OAEP.
fn opened(sealed: &[u8]) -> Vec<u8> {
    let (p, q) = primes();
    let secret = BigUint::from(65_537_u32).modinv(&((&p - 1_u8) * (&q - 1_u8)));
    let padded = BigUint::from_bytes_be(sealed).modpow(&secret.unwrap(), &(p * q));
    let padded = padded.to_bytes_be();
    let padded = [vec![0; 140 - padded.len()], padded].concat();
    let mask = |seed: &[u8], length: usize| -> Vec<u8> {
        let hashes = (0..8_u32).flat_map(|at| hash(&SHA1, &[seed, &at.to_be_bytes()]));
        hashes.take(length).collect()
    };
    let (seed, block) = padded.split_at(20);
    let seed = xor(seed, &mask(block, 20));
    let block = xor(block, &mask(&seed, block.len()));
    assert_eq!(block[..20], hash(&SHA1, &[]));
    let start = block.iter().skip(20).position(|byte| *byte == 1).unwrap();
    block[20 + start + 1..].to_vec()
}

/// What the client sends after it got this as the server's key.
pub(super) async fn sealed_for(key: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let (mut wire, mut other) = pair();
    let serving = tokio::spawn(async move {
        other.send(0, &[1, 4]).await;
        assert_eq!(other.read().await, (1, vec![2]), "it asks for the key");
        other.send(2, &[&[1], key.as_slice()].concat()).await;
        other.send(4, OK).await;
        let mut sealed = Vec::new();
        other.0.read_to_end(&mut sealed).await.unwrap();
        sealed
    });
    let given = proof(false).give(&mut wire).await;
    drop(wire);
    let sealed = serving.await.unwrap();
    given.map(|()| sealed[4..].to_vec())
}

#[tokio::test]
async fn outside_tls_a_password_is_encrypted_for_the_servers_key() {
    let (p, q) = primes();
    let modulus = (p * q).to_bytes_be();
    let sealed = sealed_for(pem(&modulus, &[1, 0, 1])).await.unwrap();
    assert_eq!(
        opened(&sealed),
        xor(&[PASSWORD.as_bytes(), &[0]].concat(), NONCE)
    );
    let whole = pem(&modulus, &[1, 0, 1]);
    for key in [
        b"".to_vec(),
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_vec(),
        whole[..100].to_vec(),
        // Too short, too long, none at all.
        pem(&modulus[..64], &[1, 0, 1]),
        pem(&modulus.repeat(20), &[1, 0, 1]),
        pem(&[0; 128], &[1, 0, 1]),
        pem(&[], &[1, 0, 1]),
        pem(&modulus, &modulus),
        pem(&modulus, &[]),
    ] {
        assert_eq!(code(sealed_for(key).await), Code::ConnectFailed);
    }
}
