//! What the runtime may ask, by table.

use std::{ffi::OsString, time::Duration};

use serde_json::{Value, json};

use super::{
    error::{CniError, Code},
    request::{Attachment, CniCommand, CniRequest, VERSIONS, WhenUnknown},
};

const POD: [(&str, &str); 5] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/run/netns/x"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=6a"),
];

/// The variables of an ADD, some of them others.
fn read(others: &[(&str, &str)], input: &str) -> Result<CniRequest, CniError> {
    let variable = |name: &str| {
        let found = others.iter().chain(&POD).find(|(variable, _)| *variable == name);
        found.map(|(_, value)| OsString::from(value))
    };
    CniRequest::read(&variable, input)
}

#[test]
fn a_request_of_each_version_is_understood() {
    for version in VERSIONS {
        let input =
            json!({"cniVersion": version, "name": "n", "type": "podgate-cni", "prevResult": {"ips": []}});
        let request = read(&[], &input.to_string()).unwrap();
        assert_eq!((request.command, &*request.version), (CniCommand::Add, version));
        assert_eq!(request.previous.as_deref(), Some(r#"{"ips":[]}"#));
        assert_eq!(request.argument("K8S_POD_NAME"), Some("web-0"));
        let attachment = Attachment { container: "c1".into(), interface: "eth0".into() };
        assert_eq!(request.attachment, Some(attachment));
    }
}

#[test]
fn each_command_has_the_variables_that_it_needs() {
    let input = r#"{"cniVersion": "1.1.0"}"#;
    let without = |name| [(name, "")];
    for (command, variable, is_needed) in [
        ("ADD", "CNI_NETNS", true),
        ("CHECK", "CNI_NETNS", true),
        ("DEL", "CNI_NETNS", false),
        ("ADD", "CNI_CONTAINERID", true),
        ("DEL", "CNI_CONTAINERID", true),
        ("DEL", "CNI_IFNAME", true),
        ("CHECK", "CNI_IFNAME", true),
        ("ADD", "CNI_ARGS", false),
        ("GC", "CNI_CONTAINERID", false),
        ("STATUS", "CNI_IFNAME", false),
        ("VERSION", "CNI_CONTAINERID", false),
    ] {
        let others = [&[("CNI_COMMAND", command)][..], &without(variable)].concat();
        let code = read(&others, input).err().map(|error| error.code);
        assert_eq!(code, is_needed.then_some(Code::InvalidEnvironment), "{command} without {variable}");
    }
}

#[test]
fn what_is_wrong_has_the_code_of_the_specification() {
    let version = r#"{"cniVersion": "1.0.0"}"#;
    for (others, input, code) in [
        (&[("CNI_COMMAND", "FLY")][..], version, Code::InvalidEnvironment),
        (&[("CNI_COMMAND", "")], version, Code::InvalidEnvironment),
        (&[("CNI_CONTAINERID", "../x")], version, Code::InvalidEnvironment),
        (&[("CNI_CONTAINERID", "-x")], version, Code::InvalidEnvironment),
        (&[("CNI_IFNAME", "a/b")], version, Code::InvalidEnvironment),
        (&[("CNI_IFNAME", "..")], version, Code::InvalidEnvironment),
        (&[("CNI_IFNAME", "longer-than-names")], version, Code::InvalidEnvironment),
        (&[], "", Code::CannotDecode),
        (&[], "[]", Code::CannotDecode),
        (&[], r#"{"cniVersion": "1.0.0", "whenUnknown": "ajar"}"#, Code::CannotDecode),
        (&[], r#"{"cniVersion": "0.2.0"}"#, Code::IncompatibleVersion),
        (&[], r#"{"cniVersion": "2.0.0"}"#, Code::IncompatibleVersion),
        (&[], "{}", Code::IncompatibleVersion),
        (&[], r#"{"cniVersion": "1.0.0", "timeout": -1}"#, Code::InvalidConfiguration),
        (&[], r#"{"cniVersion": "1.0.0", "timeout": 1e9}"#, Code::InvalidConfiguration),
    ] {
        assert_eq!(read(others, input).map_err(|error| error.code), Err(code), "{others:?} {input}");
    }
    let error = CniError::new(Code::TryAgainLater, "a\nb");
    let error: Value = serde_json::from_str(&error.json("0.4.0")).unwrap();
    assert_eq!(error, json!({"cniVersion": "0.4.0", "code": 11, "msg": "podgate: a b", "details": ""}));
}

#[test]
fn settings_have_defaults() {
    let settings = |input: &str| read(&[], input).unwrap().settings;
    let found = settings(r#"{"cniVersion": "1.0.0"}"#);
    assert_eq!(found.socket.to_str(), Some("/run/podgate/podgate.sock"));
    assert_eq!(found.bpffs.to_str(), Some("/sys/fs/bpf"));
    assert_eq!((found.timeout, found.when_unknown), (Duration::from_secs(5), WhenUnknown::Closed));
    let found = settings(
        r#"{"cniVersion": "1.0.0", "socket": "/s", "bpffs": "/b", "timeout": 0.5, "whenUnknown": "open", "other": 1}"#,
    );
    assert_eq!((found.socket.to_str(), found.bpffs.to_str()), (Some("/s"), Some("/b")));
    assert_eq!((found.timeout, found.when_unknown), (Duration::from_millis(500), WhenUnknown::Open));
}

#[test]
fn garbage_collection_names_what_is_still_there_or_nothing_is_forgotten() {
    let attachment = Attachment { container: "c1".into(), interface: "eth0".into() };
    for (key, found) in [
        (
            r#", "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]"#,
            Some(vec![attachment.clone()]),
        ),
        (r#", "cni.dev/attachments": [{"containerID": "c1", "ifname": "eth0"}]"#, Some(vec![attachment])),
        (r#", "cni.dev/valid-attachments": []"#, Some(vec![])),
        (r#", "cni.dev/valid-attachments": null"#, None),
        ("", None),
    ] {
        let input = format!(r#"{{"cniVersion": "1.1.0", "name": "n"{key}}}"#);
        let request = read(&[("CNI_COMMAND", "GC")], &input).unwrap();
        assert_eq!((&*request.network, request.valid), ("n", found), "{input}");
    }
}

#[test]
fn a_result_of_null_is_none() {
    let input = r#"{"cniVersion": "1.0.0", "prevResult": {"ips": []}, "prevResult": null}"#;
    assert_eq!(read(&[], input).map(|request| request.previous), Ok(None));
}
