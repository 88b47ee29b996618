//! Who is who in a cluster of ours: certificate authority, server certificate, keys and tokens.
//!
//! In: the names that clients use for the API server. Out: files in one directory that its options name, and
//! kubeconfigs. The keys are of this cluster alone and end with it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

/// The files of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    directory: PathBuf,
    /// As an URL.
    server: String,
}

/// Whoever shows it is `system:masters`.
pub(super) const ADMINISTRATOR_TOKEN: &str = "administrator-of-a-test";

/// Where the API server listens.
pub(crate) const PORT: u16 = 6443;

/// What pods call it: the first address of the services' network.
pub(super) const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

impl Authority {
    /// Makes everything new in `directory`, for a server that clients find at `addresses`; kubeconfigs name
    /// the first.
    pub(crate) fn new(directory: &Path, addresses: &[IpAddr]) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        let first = addresses.first().context("an API server has an address")?;
        let host = if first.is_ipv6() { format!("[{first}]") } else { first.to_string() };
        let authority = Self { directory: directory.to_owned(), server: format!("https://{host}:{PORT}") };

        let issuer = authority.write_issuer().context("making the certificate authority")?;
        authority.write_server(&issuer, addresses).context("making the server's certificate")?;
        let key = KeyPair::generate().context("making the key of service accounts")?;
        authority.write("service-accounts.key", &key.serialize_pem())?;
        authority.write("service-accounts.pub", &key.public_key_pem())?;
        let token = format!("{ADMINISTRATOR_TOKEN},administrator,administrator,system:masters\n");
        authority.write("tokens.csv", &token)?;
        authority.write("kubeconfig", &authority.kubeconfig_for(ADMINISTRATOR_TOKEN))?;
        Ok(authority)
    }

    /// A file of the directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The administrator's.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig")
    }

    /// The text of a kubeconfig (JSON is YAML) whose user shows `token`.
    pub(super) fn kubeconfig_for(&self, token: &str) -> String {
        let cluster = json!({"server": self.server, "certificate-authority": self.file("ca.crt")});
        let names = json!({"cluster": "podgate", "user": "podgate", "namespace": "default"});
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "podgate", "cluster": cluster}],
            "users": [{"name": "podgate", "user": {"token": token}}],
            "contexts": [{"name": "podgate", "context": names}],
            "current-context": "podgate",
        });
        format!("{kubeconfig:#}\n")
    }

    fn write_issuer(&self) -> Result<Issuer<'static, KeyPair>> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "podgate's cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        self.write("ca.crt", &params.self_signed(&key)?.pem())?;
        self.write("ca.key", &key.serialize_pem())?;
        Ok(Issuer::new(params, key))
    }

    fn write_server(&self, issuer: &Issuer<'static, KeyPair>, addresses: &[IpAddr]) -> Result<()> {
        let fixed = [Ipv4Addr::LOCALHOST.to_string(), SERVICE_ADDRESS.to_string()];
        let names =
            ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
        let asked = addresses.iter().map(IpAddr::to_string).chain(fixed).chain(names);
        let mut params = CertificateParams::new(asked.collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        self.write("server.crt", &params.signed_by(&key, issuer)?.pem())?;
        self.write("server.key", &key.serialize_pem())
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.file(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    }
}
