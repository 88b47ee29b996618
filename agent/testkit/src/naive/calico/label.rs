//! Labels as Calico's selectors see them, and the selectors, which are evaluated while they are read.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    super::{
        cidr::Cidr,
        object::{items, label, name_of, namespace_label, namespace_of, of_kind},
    },
    counting, kept, namespace,
};

/// The labels of a pod, of a host endpoint or of a network set.
pub(super) struct Labels<'a> {
    objects: &'a [Value],
    object: &'a Value,
    namespace: Option<&'a str>,
    account: Option<&'a str>,
}

impl<'a> Labels<'a> {
    pub(super) fn of_pod(objects: &'a [Value], pod: &'a Value) -> Self {
        let account = pod["spec"]["serviceAccountName"].as_str();
        Self { objects, object: pod, namespace: Some(namespace_of(pod)), account }
    }

    /// The labels of a host endpoint, which is in no namespace.
    pub(super) fn of_host(objects: &'a [Value], host: &'a Value) -> Self {
        Self { objects, object: host, namespace: None, account: None }
    }

    fn of_set(objects: &'a [Value], set: &'a Value) -> Self {
        Self { objects, object: set, namespace: namespace(set), account: None }
    }

    pub(super) fn get(&self, key: &str) -> Option<String> {
        let is_pod = self.object["kind"] == "Pod";
        let found = match key {
            "projectcalico.org/namespace" | "pcns.projectcalico.org/name" => self.namespace,
            "projectcalico.org/serviceaccount" | "pcsa.projectcalico.org/name" => self.account,
            "projectcalico.org/orchestrator" => is_pod.then_some("k8s"),
            _ if key.starts_with("pcns.") => namespace_label(self.objects, self.namespace?, &key[5..]),
            _ if key.starts_with("pcsa.") => {
                let account = self.account?;
                let mut accounts = of_kind(self.objects, "v1", "ServiceAccount");
                let account =
                    accounts.find(|it| name_of(it) == account && Some(namespace_of(it)) == self.namespace)?;
                label(account, &key[5..])
            }
            _ => {
                if let Some(kept) = kept(self.object) {
                    return kept["labels"][key].as_str().map(str::to_owned);
                }
                label(self.object, key)
            }
        };
        found.map(str::to_owned)
    }
}

/// Whether an address is that of a pod or a host endpoint that a selector matches, or lies in a network set
/// that it matches.
pub(super) fn selects(
    objects: &[Value],
    pod: Option<&Value>,
    address: IpAddr,
    is_matched: &dyn Fn(&Labels<'_>) -> bool,
) -> bool {
    let has = |host: &Value| items(&host["spec"]["expectedIPs"]).iter().any(|it| contains(it, address));
    pod.is_some_and(|pod| is_matched(&Labels::of_pod(objects, pod)))
        || counting(objects, &["HostEndpoint"])
            .any(|host| has(host) && is_matched(&Labels::of_host(objects, host)))
        || counting(objects, &["NetworkSet", "GlobalNetworkSet"]).any(|set| {
            is_matched(&Labels::of_set(objects, set))
                && items(&set["spec"]["nets"]).iter().any(|net| contains(net, address))
        })
}

/// A network, or a single address.
pub(super) fn contains(net: &Value, address: IpAddr) -> bool {
    let text = net.as_str().unwrap_or_default();
    match text.parse::<IpAddr>() {
        Ok(single) => single == address,
        Err(_) => Cidr::parse(text).is_some_and(|cidr| cidr.contains(address)),
    }
}

/// Whether labels match. Nothing at all matches everything, and what cannot be read nothing. `prefix`: before
/// each key.
///
/// In a selector of namespaces, `all()` is what is in one, and `global()` what is in none.
pub(super) fn matches(text: &str, get: &dyn Fn(&str) -> Option<String>, prefix: &str) -> bool {
    evaluate(text, get, prefix) == Some(true)
}

/// Whether a selector can be read.
pub(super) fn is_valid(text: &str) -> bool {
    evaluate(text, &|_| None, "").is_some()
}

fn evaluate(text: &str, get: &dyn Fn(&str) -> Option<String>, prefix: &str) -> Option<bool> {
    if text.trim().is_empty() {
        return Some(true);
    }
    let mut reader = Reader { rest: text, get, prefix, is_bad: false };
    let value = reader.or();
    (!reader.is_bad && reader.rest.trim().is_empty()).then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
    get: &'a dyn Fn(&str) -> Option<String>,
    prefix: &'a str,
    /// Something else was to come.
    is_bad: bool,
}

impl Reader<'_> {
    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn need(&mut self, token: &str) {
        self.is_bad |= !self.eat(token);
    }

    fn or(&mut self) -> bool {
        let mut value = self.and();
        while self.eat("||") {
            let next = self.and();
            value = value || next;
        }
        value
    }

    fn and(&mut self) -> bool {
        let mut value = self.not();
        while self.eat("&&") {
            let next = self.not();
            value = value && next;
        }
        value
    }

    fn not(&mut self) -> bool {
        if self.eat("!") {
            return !self.not();
        }
        if self.eat("(") {
            let value = self.or();
            self.need(")");
            return value;
        }
        if self.eat("all()") {
            return self.prefix != "pcns." || (self.get)("projectcalico.org/namespace").is_some();
        }
        if self.eat("global()") {
            return self.prefix != "pcns." || (self.get)("projectcalico.org/namespace").is_none();
        }
        if self.eat("has(") {
            let value = self.label();
            self.need(")");
            return value.is_some();
        }
        let value = self.label();
        let is = |wanted: &str| value.as_deref() == Some(wanted);
        if self.eat("==") {
            return is(&self.text());
        }
        // A label that is not there is not equal to anything.
        if self.eat("!=") {
            return !is(&self.text());
        }
        if self.eat("not in") {
            return !self.list().iter().any(|wanted| is(wanted));
        }
        if self.eat("in") {
            return self.list().iter().any(|wanted| is(wanted));
        }
        if self.eat("contains") {
            let part = self.text();
            return value.is_some_and(|value| value.contains(&part));
        }
        if self.eat("starts with") {
            let part = self.text();
            return value.is_some_and(|value| value.starts_with(&part));
        }
        self.need("ends with");
        let part = self.text();
        value.is_some_and(|value| value.ends_with(&part))
    }

    fn label(&mut self) -> Option<String> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_./-".contains(c)));
        let (key, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.is_bad |= key.is_empty();
        self.rest = rest;
        (self.get)(&format!("{}{key}", self.prefix))
    }

    fn text(&mut self) -> String {
        self.rest = self.rest.trim_start();
        let quote = self.rest.chars().next().filter(|first| "'\"".contains(*first));
        let parts = quote.and_then(|quote| self.rest[1..].split_once(quote));
        let Some((text, rest)) = parts else {
            self.is_bad = true;
            return String::new();
        };
        self.rest = rest;
        text.to_owned()
    }

    fn list(&mut self) -> Vec<String> {
        self.need("{");
        let mut list = Vec::new();
        while !self.is_bad && !self.eat("}") {
            list.push(self.text());
            self.eat(",");
        }
        list
    }
}
