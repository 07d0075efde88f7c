//! The login to a MySQL server: by a proof that we know the password, and never by the password in clear text outside
//! TLS.

use std::mem::take;

use mysql_common::constants::{CapabilityFlags, UTF8MB4_GENERAL_CI};
use mysql_common::crypto::rsa::{GetRandom, Pkcs1OaepPadding, PublicKey};
use mysql_common::io::ParseBuf;
use mysql_common::num_bigint::BigUint;
use mysql_common::packets::{AuthPlugin, HandshakeResponse, SslRequest};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::wire::{Wire, bytes, strange};
use crate::error::{Code, Failure};
use crate::source::database::{Server, Tls};

/// Bytes of the longest packet before we are let in.
const LONGEST: usize = 64 * 1024;
/// Another way may be asked for, then the password, and then comes the end.
const ROUNDS: usize = 3;
/// What we can. Neither LOCAL INFILE nor several statements at once nor compression are among it.
const ASKED: CapabilityFlags = CapabilityFlags::CLIENT_PROTOCOL_41
    .union(CapabilityFlags::CLIENT_LONG_PASSWORD)
    .union(CapabilityFlags::CLIENT_SECURE_CONNECTION)
    .union(CapabilityFlags::CLIENT_TRANSACTIONS)
    .union(CapabilityFlags::CLIENT_CONNECT_WITH_DB)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH);
/// The oldest server that knows our character set; all do by now.
const VERSION: (u16, u16, u16) = (5, 5, 3);

/// The first packet of a server.
struct Hello {
    capabilities: CapabilityFlags,
    way: AuthPlugin<'static>,
    nonce: Vec<u8>,
}

/// A proof of the password, by the way that the server asks for.
pub(super) struct Proof<'a> {
    pub password: &'a str,
    pub is_secure: bool,
    pub way: AuthPlugin<'static>,
    /// What the server wants the proof for.
    pub nonce: Vec<u8>,
}

/// `most`: bytes of the longest packet that we take.
pub async fn login(mut wire: Wire, server: &Server, most: usize) -> Result<Wire, Failure> {
    let hello = wire.read(LONGEST).await?.and_then(Hello::read);
    let hello = hello.ok_or_else(strange)?;
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    let mut asked = ASKED;
    if let Tls::Verify { ca } = &server.tls {
        asked |= CapabilityFlags::CLIENT_SSL;
        if !hello.capabilities.contains(CapabilityFlags::CLIENT_SSL) {
            return Err(Failure::new(
                Code::TlsFailed,
                "the server does not offer TLS",
            ));
        }
        let request = SslRequest::new(asked, most, UTF8MB4_GENERAL_CI as u8);
        wire.write(&bytes(&request)).await?;
        wire = wire.secured(&server.host, ca.as_deref()).await?;
    }
    let password = server.password.as_ref().map(|password| password.text());
    let mut proof = Proof {
        password: password.as_deref().unwrap_or_default(),
        is_secure: matches!(server.tls, Tls::Verify { .. }),
        way: hello.way,
        nonce: hello.nonce,
    };
    let response = HandshakeResponse::new(
        Some(proof.first()),
        VERSION,
        Some(server.user.as_bytes()),
        Some(server.database.as_bytes()),
        Some(proof.way.clone()),
        asked,
        None,
        most,
    );
    wire.write(&bytes(&response)).await?;
    proof.give(&mut wire).await?;
    Ok(wire)
}

impl Hello {
    fn read(packet: &[u8]) -> Option<Hello> {
        let mut rest = ParseBuf(packet);
        let version = rest.checked_eat_u8()?;
        // The server's version, and the connection's number.
        rest.eat_null_str();
        rest.checked_eat(4)?;
        let mut nonce = rest.checked_eat(8)?.to_vec();
        rest.checked_eat(1)?;
        let low = rest.checked_eat_u16_le()?;
        // Character set and status.
        rest.checked_eat(3)?;
        let high = rest.checked_eat_u16_le()?;
        let length = usize::from(rest.checked_eat_u8()?);
        rest.checked_eat(10)?;
        // What is left of the nonce, with a zero at its end.
        nonce.extend(rest.checked_eat(length.saturating_sub(8).max(13))?);
        let way = match AuthPlugin::from_bytes(rest.eat_null_str()) {
            AuthPlugin::CachingSha2Password => AuthPlugin::CachingSha2Password,
            // Others are asked for when the user is known.
            _ => AuthPlugin::MysqlNativePassword,
        };
        let flags = u32::from(high) << 16 | u32::from(low);
        (version == 10).then_some(Hello {
            capabilities: CapabilityFlags::from_bits_truncate(flags),
            nonce: nonce.get(..nonce_length(&way))?.to_vec(),
            way,
        })
    }
}

impl Proof<'_> {
    /// Nothing, where there is no password.
    fn first(&self) -> Vec<u8> {
        let data = self.way.gen_data(Some(self.password), &self.nonce);
        data.map(|data| data.to_vec()).unwrap_or_default()
    }

    /// Answers what the server asks, until it lets us in.
    pub async fn give(&mut self, wire: &mut Wire) -> Result<(), Failure> {
        let mut may_switch = true;
        for _ in 0..ROUNDS {
            let is_sha2 = self.way == AuthPlugin::CachingSha2Password;
            match wire.read(LONGEST).await?.ok_or_else(strange)? {
                [0, ..] => return Ok(()),
                [0xfe, asked @ ..] if take(&mut may_switch) => {
                    self.switch(asked)?;
                    wire.write(&self.first()).await?;
                }
                // The proof is taken.
                [1, 3] if is_sha2 => {}
                // The server does not know what it would compare the proof with.
                [1, 4] if is_sha2 => self.tell(wire).await?,
                _ => break,
            }
        }
        Err(strange())
    }

    fn switch(&mut self, asked: &[u8]) -> Result<(), Failure> {
        let mut asked = ParseBuf(asked);
        let way = AuthPlugin::from_bytes(asked.eat_null_str());
        let is_good = matches!(
            way,
            AuthPlugin::MysqlNativePassword | AuthPlugin::CachingSha2Password | AuthPlugin::Ed25519
        );
        if !is_good {
            return Err(Failure::new(
                Code::CredentialsRejected,
                "the server asks for an authentication plugin that is not safe or not supported",
            ));
        }
        self.way = way.into_owned();
        let nonce = asked.checked_eat(nonce_length(&self.way));
        self.nonce = nonce.ok_or_else(strange)?.to_vec();
        Ok(())
    }

    /// Tells the password: outside TLS, so that only the owner of the server's key can read it.
    async fn tell(&self, wire: &mut Wire) -> Result<(), Failure> {
        let mut sent = Zeroizing::new([self.password.as_bytes(), &[0]].concat());
        if self.is_secure {
            return wire.write(&sent).await;
        }
        wire.write(&[2]).await?;
        for (byte, nonce) in sent.iter_mut().zip(self.nonce.iter().cycle()) {
            *byte ^= nonce;
        }
        let sealed = match wire.read(LONGEST).await? {
            Some([1, key @ ..]) => sealed(&sent, key),
            _ => None,
        };
        wire.write(&sealed.ok_or_else(strange)?).await
    }
}

fn nonce_length(way: &AuthPlugin) -> usize {
    match way {
        AuthPlugin::Ed25519 => 32,
        _ => 20,
    }
}

/// What only the owner of this RSA key, in PEM, can read. `None`: it is no key, or none that the text fits.
fn sealed(text: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    let key = SubjectPublicKeyInfoDer::from_pem_slice(key).ok()?;
    let key = public_key(&key)?;
    // The padding takes two hashes of SHA-1 and two bytes.
    (text.len() + 2 * 20 + 2 <= key.num_octets())
        .then(|| key.encrypt_block(text, Pkcs1OaepPadding::new(GetRandom)))
}

/// The library's own reader would panic at what is no key, and take one that cannot be computed with.
fn public_key(mut der: &[u8]) -> Option<PublicKey> {
    const SEQUENCE: u8 = 0x30;
    let mut info = element(&mut der, SEQUENCE)?;
    element(&mut info, SEQUENCE)?;
    let mut key = element(&mut info, 0x03)?.strip_prefix(&[0])?;
    let mut numbers = element(&mut key, SEQUENCE)?;
    let modulus = element(&mut numbers, 0x02)?.strip_prefix(&[0])?;
    let exponent = element(&mut numbers, 0x02)?;
    // Of 1024 to 8192 bits, all of them used.
    let is_fit = (128..=1024).contains(&modulus.len())
        && modulus.first() >= Some(&0x80)
        && (1..=8).contains(&exponent.len());
    is_fit.then(|| {
        PublicKey::new(
            BigUint::from_bytes_be(modulus),
            BigUint::from_bytes_be(exponent),
        )
    })
}

/// The contents of the next element of DER, if it is of this kind.
fn element<'a>(der: &mut &'a [u8], kind: u8) -> Option<&'a [u8]> {
    let (length, rest) = match **der {
        [first, length @ ..=0x7f, ref rest @ ..] if first == kind => (usize::from(length), rest),
        [first, 0x81, length, ref rest @ ..] if first == kind => (usize::from(length), rest),
        [first, 0x82, high, low, ref rest @ ..] if first == kind => {
            (usize::from(u16::from_be_bytes([high, low])), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    *der = rest;
    Some(contents)
}
