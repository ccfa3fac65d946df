//! Session keys from a master key (RFC 3711 §4.3, RFC 7714 §11). There is no key derivation rate: once per connection.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

use super::{Profile, WrongKeyLength};

/// What a session key is for (RFC 3711 §4.3.1, §4.3.2).
#[derive(Debug, Clone, Copy)]
pub(super) enum Label {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

pub(super) struct MasterKey<'a> {
    key: &'a [u8],
    /// Filled up with zeros to the 14 bytes of the longest (RFC 7714 §11).
    salt: Zeroizing<[u8; 14]>,
}

impl<'a> MasterKey<'a> {
    pub fn new(profile: Profile, key: &'a [u8], salt: &[u8]) -> Result<Self, WrongKeyLength> {
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return Err(WrongKeyLength);
        }
        let mut filled = Zeroizing::new([0; 14]);
        filled[..salt.len()].copy_from_slice(salt);
        Ok(MasterKey { key, salt: filled })
    }

    /// The key stream that belongs to a label: AES in counter mode, started at label XOR salt. `N` is at most the 1 MiB
    /// that the counter reaches.
    pub fn derive<const N: usize>(&self, label: Label) -> Zeroizing<[u8; N]> {
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt[..]);
        iv[7] ^= label as u8;
        let mut key = Zeroizing::new([0; N]);
        counter_mode_key(self.key)
            .less_safe_encrypt(&mut key[..], EncryptionContext::Iv128(FixedLength::from(iv)))
            .expect("counter mode takes any length");
        key
    }
}

/// AES in counter mode with a key of 16 or 32 bytes.
pub(super) fn counter_mode_key(key: &[u8]) -> EncryptingKey {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    UnboundCipherKey::new(algorithm, key).and_then(EncryptingKey::ctr).expect("a key of the algorithm's length")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3711 appendix B.3.
    #[test]
    fn derives_the_keys_of_the_standard() {
        let key = 0xe1f97a0d3e018be0d64fa32c06de4139u128.to_be_bytes();
        let salt = &0x0ec675ad498afeebb6960b3aabe6u128.to_be_bytes()[2..];
        let master = MasterKey::new(Profile::AesCm128HmacSha1_80, &key, salt).unwrap();

        assert_eq!(u128::from_be_bytes(*master.derive(Label::RtpEncryption)), 0xc61e7a93744f39ee10734afe3ff7a087);
        assert_eq!(*master.derive::<14>(Label::RtpSalt), 0x30cbbc08863d8c85d49db34a9ae1u128.to_be_bytes()[2..]);
        let authentication = master.derive::<94>(Label::RtpAuthentication);
        let expected = "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCE\
                        E049646C43D9327AD175578EF72270986371C10C9A369AC2F94A8C5FBCDDDC25\
                        6D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2";
        let hex: String = authentication.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn refuses_other_lengths() {
        for (key, salt) in [(15, 14), (32, 14), (16, 12), (16, 0)] {
            assert!(MasterKey::new(Profile::AesCm128HmacSha1_80, &vec![0; key], &vec![0; salt]).is_err());
        }
    }
}
