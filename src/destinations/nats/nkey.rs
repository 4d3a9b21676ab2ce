//! Nkeys: how a NATS user is named and signs, as NATS writes its Ed25519 keys (`nats-io/nkeys`, README, "Encoding").
//!
//! Always true: a seed is a user's and its checksum holds, or there is no key; the seed is not kept. Not here: what is
//! signed (`link`).

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

/// `S` and `U` as the first letters of what is written.
const SEED: u8 = 18 << 3;
const USER: u8 = 20 << 3;

/// A user's key.
pub(super) struct UserKey {
    pair: Ed25519KeyPair,
    /// `U…`.
    pub(super) public: String,
}

impl UserKey {
    /// The key of a seed, `SU…`.
    pub(super) fn of_seed(seed: &str) -> Option<Self> {
        let raw = Zeroizing::new(BASE32_NOPAD.decode(seed.as_bytes()).ok()?);
        let (body, sum) = raw.split_last_chunk::<2>()?;
        let ([first, second], secret) = body.split_first_chunk::<2>()?;
        // Five bits say that it is a seed, the next eight whose.
        let kind = (first & 0b111) << 5 | second >> 3;
        if checksum(body).to_le_bytes() != *sum || first & 0b1111_1000 != SEED || kind != USER {
            return None;
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(secret).ok()?;
        let mut public = vec![USER];
        public.extend_from_slice(pair.public_key().as_ref());
        public.extend_from_slice(&checksum(&public).to_le_bytes());
        Some(Self { pair, public: BASE32_NOPAD.encode(&public) })
    }

    /// The signature of a server's nonce, as `CONNECT` wants it.
    pub(super) fn sign(&self, nonce: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.sign(nonce.as_bytes()).as_ref())
    }
}

/// CRC-16/XMODEM.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u16;
    for byte in bytes {
        sum ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            sum = if sum & 0x8000 == 0 { sum << 1 } else { sum << 1 ^ 0x1021 };
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of NATS docs, "NKeys", section "Generating keys and configuring the server".
    const EXAMPLE: (&str, &str) = (
        "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY",
        "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4",
    );

    #[test]
    fn a_seed_gives_the_public_key_that_the_docs_name() {
        assert_eq!(checksum(b"123456789"), 0x31c3);
        assert_eq!(UserKey::of_seed(EXAMPLE.0).map(|key| key.public).as_deref(), Some(EXAMPLE.1));
    }

    #[test]
    fn what_is_no_users_seed_is_no_key() {
        let mistyped = EXAMPLE.0.replace("SSL3", "SSL4");
        // An account's seed has the letters `SA`.
        let account = EXAMPLE.0.replacen("SU", "SA", 1);
        for text in ["", "SU", EXAMPLE.1, &mistyped, &account, "not base32!", &EXAMPLE.0.to_lowercase()] {
            assert!(UserKey::of_seed(text).is_none(), "{text}");
        }
    }
}
