//! The merged TOML file and environment, read key by key. Every read makes its key known, so in the end whatever was set
//! but never asked for is an unknown key.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::problem::{Problem, Problems};
use super::secret::Secret;

const PREFIX: &str = "PARLOUR_";

/// How alike two keys must be (Jaro–Winkler, 0…1) before one is suggested for the other: above it are slips of a letter or
/// two, below it are mere neighbours.
const LIKENESS: f64 = 0.9;

pub struct Source {
    file: PathBuf,
    figment: Figment,
    root: Dict,
    known: Vec<String>,
    /// Sections whose keys the operator names.
    free: Vec<String>,
    problems: Vec<Problem>,
}

impl Source {
    pub fn open(file: &Path, variables: impl Iterator<Item = (String, String)>) -> Result<Source, Problems> {
        let unreadable = |what: String| Problem { key: String::new(), place: None, what };
        let text = fs::read_to_string(file)
            .map_err(|e| unreadable(format!("cannot read {}: {e}; give the path with --config", file.display())))?;
        let figment = Figment::from(Toml::string(&text)).merge(environment(variables));
        let root =
            figment.extract::<Dict>().map_err(|e| unreadable(format!("{} is not TOML: {}", file.display(), e.kind)))?;
        Ok(Source { file: file.to_owned(), figment, root, known: Vec::new(), free: Vec::new(), problems: Vec::new() })
    }

    /// A key that has no default.
    pub fn required<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>, expected: &str) -> Option<T> {
        if self.find(key).is_none() {
            self.known.push(key.to_owned());
            let what = format!("is required: {expected}. Add it to {} or set {}", self.file.display(), variable(key));
            self.problems.push(Problem { key: key.to_owned(), place: None, what });
            return None;
        }
        self.value(key, parse, expected)
    }

    /// One text, number or boolean. `None` when it is not set or when it is wrong, which becomes a problem.
    pub fn value<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>, expected: &str) -> Option<T> {
        self.known.push(key.to_owned());
        let value = self.find(key)?;
        self.parse(key, &value, &parse, expected)
    }

    /// A list, or a single entry in its place.
    pub fn list<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>, expected: &str) -> Option<Vec<T>> {
        self.known.push(key.to_owned());
        let entries = match self.find(key)? {
            Value::Array(_, entries) => entries,
            single => vec![single],
        };
        Some(entries.iter().filter_map(|entry| self.parse(key, entry, &parse, expected)).collect())
    }

    /// A section whose keys the operator names.
    pub fn table<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>, expected: &str) -> BTreeMap<String, T> {
        let mut table = BTreeMap::new();
        for (name, value) in self.section(key) {
            if let Some(parsed) = self.parse(&format!("{key}.{name}"), &value, &parse, expected) {
                table.insert(name, parsed);
            }
        }
        table
    }

    /// A section of `name = "secret"` or `name_file = "path of a file that holds it"`.
    pub fn secrets(&mut self, key: &str) -> BTreeMap<String, Secret> {
        let section = self.section(key);
        let mut secrets = BTreeMap::new();
        for (name, value) in &section {
            let path = format!("{key}.{name}");
            let place = self.place(value);
            let found = match name.strip_suffix("_file") {
                Some(bare) if section.contains_key(bare) => {
                    Err(format!("both {path} and {key}.{bare} are set; keep one of them"))
                }
                Some(bare) => read_secret(value, Secret::new).map(|secret| (bare.to_owned(), secret)),
                None => scalar(value)
                    .ok_or_else(|| "expected a text".to_owned())
                    .and_then(Secret::new)
                    .map(|secret| (name.clone(), secret)),
            };
            match found {
                Ok((name, secret)) => drop(secrets.insert(name, secret)),
                Err(what) => self.problems.push(Problem { key: path, place, what }),
            }
        }
        secrets
    }

    /// One secret: `key`, or the file that holds it in `key_file`. `advice` follows what is wrong with it.
    pub fn secret(&mut self, key: &str, advice: &str) -> Option<Secret> {
        self.secret_of(key, advice, Secret::new)
    }

    /// A secret that another program has made, in the same two ways.
    pub fn token(&mut self, key: &str, advice: &str) -> Option<Secret> {
        self.secret_of(key, advice, Secret::token)
    }

    fn secret_of(&mut self, key: &str, advice: &str, new: fn(String) -> Result<Secret, String>) -> Option<Secret> {
        let twin = format!("{key}_file");
        self.known.extend([key.to_owned(), twin.clone()]);
        let (set, value, found) = match (self.find(key), self.find(&twin)) {
            (None, None) => return None,
            (Some(_), Some(value)) => {
                let what = format!("both {twin} and {key} are set; keep one of them");
                let place = self.place(&value);
                self.problems.push(Problem { key: twin, place, what });
                return None;
            }
            (Some(value), None) => {
                let found = scalar(&value).ok_or_else(|| "expected a text".to_owned()).and_then(new);
                (key, value, found)
            }
            (None, Some(value)) => {
                let found = read_secret(&value, new);
                (twin.as_str(), value, found)
            }
        };
        match found {
            Ok(secret) => Some(secret),
            Err(what) => {
                let problem =
                    Problem { key: set.to_owned(), place: self.place(&value), what: format!("{what}. {advice}") };
                self.problems.push(problem);
                None
            }
        }
    }

    pub fn is_set(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Reports what is wrong with `key` beyond its own form.
    pub fn refuse(&mut self, key: &str, what: String) {
        let place = self.find(key).and_then(|value| self.place(&value));
        self.problems.push(Problem { key: key.to_owned(), place, what });
    }

    /// Reports every problem, unknown keys among them.
    pub fn finish(mut self) -> Result<(), Problems> {
        let mut set = Vec::new();
        leaves(&self.root, "", &self.free, &mut set);
        for (key, value) in set {
            if self.known.contains(&key) {
                continue;
            }
            let what = match self.suggestion(&key) {
                Some(known) => format!("is not a key; did you mean `{known}`?"),
                None => "is not a key; `config/parlour.toml` shows all there are".to_owned(),
            };
            let place = self.place(&value);
            self.problems.push(Problem { key, place, what });
        }
        if self.problems.is_empty() { Ok(()) } else { Err(Problems(self.problems)) }
    }

    fn find(&self, key: &str) -> Option<Value> {
        let mut section = &self.root;
        let mut path = key.split('.').peekable();
        while let Some(name) = path.next() {
            let value = section.get(name)?;
            match value {
                _ if path.peek().is_none() => return Some(value.clone()),
                Value::Dict(_, inner) => section = inner,
                _ => return None,
            }
        }
        None
    }

    fn section(&mut self, key: &str) -> BTreeMap<String, Value> {
        self.known.push(key.to_owned());
        match self.find(key) {
            Some(Value::Dict(_, entries)) => {
                self.free.push(key.to_owned());
                entries.into_iter().collect()
            }
            Some(other) => {
                let problem = Problem {
                    key: key.to_owned(),
                    place: self.place(&other),
                    what: format!("is a section: write [{key}] and below it name = \"value\""),
                };
                self.problems.push(problem);
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        }
    }

    fn parse<T>(&mut self, key: &str, value: &Value, parse: &impl Fn(&str) -> Option<T>, expected: &str) -> Option<T> {
        let text = scalar(value);
        let parsed = text.as_deref().and_then(parse);
        if parsed.is_none() {
            let what = match text {
                Some(text) => format!("`{text}` is not {expected}"),
                None => format!("expected {expected}"),
            };
            self.problems.push(Problem { key: key.to_owned(), place: self.place(value), what });
        }
        parsed
    }

    fn place(&self, value: &Value) -> Option<String> {
        let metadata = self.figment.get_metadata(value.tag())?;
        match metadata.source.as_ref().and_then(|source| source.custom()) {
            Some(variable) => Some(variable.to_owned()),
            None => Some(self.file.display().to_string()),
        }
    }

    /// The known key that was probably meant: spelt alike, or the same name in another section.
    fn suggestion(&self, key: &str) -> Option<&str> {
        let name = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let likeness = |known: &str| {
            let same_name = if name(known) == name(key) { LIKENESS } else { 0.0 };
            strsim::jaro_winkler(known, key).max(same_name)
        };
        // Of equals the first: it belongs to the more common section.
        let best = self.known.iter().rev().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
        (likeness(best) >= LIKENESS).then_some(best)
    }
}

fn read_secret(value: &Value, new: fn(String) -> Result<Secret, String>) -> Result<Secret, String> {
    let path = scalar(value).ok_or("expected the path of a file that holds the secret")?;
    let text = fs::read_to_string(&path).map_err(|e| format!("cannot read {path}: {e}"))?;
    // Editors and `echo` end a file with a line break.
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{path} is empty; write the secret into it")),
        secret => new(secret.to_owned()).map_err(|what| format!("{path}: {what}")),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Bool(_, value) => Some(value.to_string()),
        Value::Num(_, number) => match number.to_f64() {
            Some(fraction) => Some(fraction.to_string()),
            None => Some(
                number
                    .to_i128()
                    .map_or_else(|| number.to_u128_lossy().unwrap_or_default().to_string(), |n| n.to_string()),
            ),
        },
        Value::Char(_, c) => Some(c.to_string()),
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => None,
    }
}

/// Every key that is set, without those in sections whose keys the operator names.
fn leaves(section: &Dict, path: &str, free: &[String], into: &mut Vec<(String, Value)>) {
    for (name, value) in section {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match value {
            _ if free.contains(&key) => {}
            Value::Dict(_, inner) => leaves(inner, &key, free, into),
            _ => into.push((key, value.clone())),
        }
    }
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// The `PARLOUR_…` variables, one provider each, so that a problem can name the variable.
fn environment(variables: impl Iterator<Item = (String, String)>) -> Figment {
    let mut figment = Figment::new();
    for (name, text) in variables {
        let Some(key) = name.strip_prefix(PREFIX) else { continue };
        // Kubernetes describes a service called `parlour` in such variables to every container beside it.
        if key == "PORT" || key.starts_with("PORT_") || key.starts_with("SERVICE_") {
            continue;
        }
        let mut path: Vec<String> = key.split("__").map(str::to_lowercase).collect();
        if path[0] == "keys" && path.len() == 2 {
            // API keys are case-sensitive.
            path[1] = key["KEYS__".len()..].to_owned();
        }
        figment = figment.merge(Variable { name, path, text });
    }
    figment
}

struct Variable {
    name: String,
    path: Vec<String>,
    text: String,
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::from("environment", figment::Source::Custom(self.name.clone()))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        // Only what looks like a list or a table is parsed; everything else is a text until its key says otherwise.
        let value = match self.text.trim_start().chars().next() {
            Some('[' | '{') => self.text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {}),
            _ => Value::from(self.text.as_str()),
        };
        let nested = self.path.iter().rev().fold(value, |inner, name| Value::from(Dict::from([(name.clone(), inner)])));
        let dict = nested.into_dict().unwrap_or_default();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}
