//! The options of a listener whose connections are encrypted: `tls=`, `client-ca=`, `client-crl=` and
//! `client-cert=`.

use std::fmt;
use std::path::PathBuf;

use super::values::{choose, word_for};

/// Which files a listener needs for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenTls {
    /// At least one; the first is for those who ask for no name that any is for.
    pub certificates: Vec<CertificateFiles>,
    /// Who may have issued the certificates of the peers.
    pub client_ca: Option<PathBuf>,
    /// Which of these have been taken back.
    pub client_crl: Option<PathBuf>,
    /// Whether each peer must have one.
    pub client_cert: ClientCert,
}

/// A certificate with its chain, and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// In PEM, the server's own certificate first.
    pub chain: PathBuf,
    /// In PEM; the same file if both are in one.
    pub key: PathBuf,
}

/// Whether each peer must have a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCert {
    /// Those without one are refused.
    #[default]
    Required,
    /// Those without one are let in, and bridges then need keys.
    Optional,
}

/// The least version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246), with ciphers that authenticate and keys that are forgotten.
    #[default]
    V12,
    /// TLS 1.3 (RFC 8446).
    V13,
}

/// The words of [`TlsVersion`].
pub(super) const TLS_MIN: [(&str, TlsVersion); 2] =
    [("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];

const CLIENT_CERT: [(&str, ClientCert); 2] =
    [("required", ClientCert::Required), ("optional", ClientCert::Optional)];

/// The names of the options.
const TLS: &str = "tls";
const CLIENT_CA: &str = "client-ca";
const CLIENT_CRL: &str = "client-crl";
const CLIENT_CERT_OPTION: &str = "client-cert";

impl ListenTls {
    /// Takes an option of a listener. False if it is not about TLS.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn take(
        tls: &mut Option<ListenTls>,
        option: &str,
        value: &str,
    ) -> Result<bool, String> {
        let file = || match value {
            "" => Err(format!("{option}= is followed by the path of a file")),
            path => Ok(PathBuf::from(path)),
        };
        if option == TLS {
            let (chain, key) = match value.split_once(',') {
                Some((chain, key))
                    if !chain.is_empty() && !key.is_empty() && !key.contains(',') =>
                {
                    (chain.into(), key.into())
                }
                None => (file()?, file()?),
                Some(_) => return Err("tls= is followed by CERTIFICATE,KEY".to_owned()),
            };
            let files = CertificateFiles { chain, key };
            tls.get_or_insert_default().certificates.push(files);
            return Ok(true);
        }
        if ![CLIENT_CA, CLIENT_CRL, CLIENT_CERT_OPTION].contains(&option) {
            return Ok(false);
        }
        let Some(tls) = tls else { return Err(format!("{option}= needs tls= before it")) };
        match option {
            CLIENT_CA => set(&mut tls.client_ca, option, file()?)?,
            CLIENT_CRL => set(&mut tls.client_crl, option, file()?)?,
            _ => tls.client_cert = choose(value, &CLIENT_CERT)?,
        }
        Ok(true)
    }

    /// What is missing, in one sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        let without = |option| Err(format!("{option}= needs client-ca= beside it"));
        match self {
            ListenTls { client_ca: Some(_), .. } => Ok(()),
            ListenTls { client_crl: Some(_), .. } => without(CLIENT_CRL),
            ListenTls { client_cert: ClientCert::Optional, .. } => without(CLIENT_CERT_OPTION),
            _ => Ok(()),
        }
    }

    /// Every file it needs.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.certificates.iter().flat_map(|files| [&files.chain, &files.key]);
        pairs.chain(&self.client_ca).chain(&self.client_crl)
    }
}

fn set(file: &mut Option<PathBuf>, option: &str, path: PathBuf) -> Result<(), String> {
    match file.replace(path) {
        None => Ok(()),
        Some(_) => Err(format!("{option}= is given twice")),
    }
}

/// As it would be written.
impl fmt::Display for ListenTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, CertificateFiles { chain, key }) in self.certificates.iter().enumerate() {
            write!(f, "{}{TLS}={}", if at > 0 { " " } else { "" }, chain.display())?;
            if key != chain {
                write!(f, ",{}", key.display())?;
            }
        }
        for (option, file) in [(CLIENT_CA, &self.client_ca), (CLIENT_CRL, &self.client_crl)] {
            if let Some(path) = file {
                write!(f, " {option}={}", path.display())?;
            }
        }
        match self.client_cert {
            ClientCert::Required => Ok(()),
            word => write!(f, " {CLIENT_CERT_OPTION}={}", word_for(word, &CLIENT_CERT)),
        }
    }
}
