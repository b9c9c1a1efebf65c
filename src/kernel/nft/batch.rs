//! A transaction in the making: its messages, and what each of them is for.

use std::fmt;
use std::iter::repeat_n;

use super::NftError;
use super::message::{self, SetKind, Verb};
use crate::kernel::netlink::acknowledge;
use crate::kernel::wire::{HEADER, Refusal, align, attributes};
use crate::plan::ruleset::{Element, Family, Map, Set, Table};

/// How many elements go into one message. The attribute that holds them ends at 64 KiB, and none of ours
/// takes more than 100 bytes.
const ELEMENTS: usize = 500;

/// What is to be done in one transaction, in order.
#[derive(Debug, Default)]
pub struct Batch {
    steps: Vec<(Vec<u8>, Step)>,
    /// Elements of one set that go into the next message.
    pending: Option<Pending>,
    sets: u32,
}

#[derive(Debug)]
struct Pending {
    family: Family,
    table: String,
    verb: Verb,
    elements: Vec<Element>,
}

#[derive(Debug, Clone)]
enum Step {
    CreateTable(String),
    DestroyTable(String),
    Timeout(&'static str),
    Set(&'static str),
    Chain(&'static str),
    Rule(&'static str, usize),
    Elements(Verb, Vec<Element>),
}

impl Batch {
    /// A batch that does nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the table with its timeouts, sets, maps, chains and rules. One of that name is `EEXIST`.
    pub fn create_table(&mut self, table: &Table) -> &mut Self {
        self.push(message::new_table(table), Step::CreateTable(table.name.into()));
        for timeout in &table.timeouts {
            self.push(message::new_timeout(table, timeout), Step::Timeout(timeout.name));
        }
        let sets = table.sets.iter().map(|set| {
            let Set { name, key, dynamic, interval } = *set;
            SetKind { name, key, value: &[], dynamic, interval }
        });
        let maps = table.maps.iter().map(|map| {
            let Map { name, key, value, interval } = *map;
            SetKind { name, key, value, dynamic: false, interval }
        });
        for set in sets.chain(maps) {
            self.sets += 1;
            self.push(message::new_set(table, set, self.sets), Step::Set(set.name));
        }
        // All chains before any rule: the kernel looks up where a rule jumps to.
        for chain in &table.chains {
            self.push(message::new_chain(table, chain), Step::Chain(chain.name));
        }
        for chain in &table.chains {
            for (index, rule) in chain.rules.iter().enumerate() {
                self.push(message::new_rule(table, chain, rule), Step::Rule(chain.name, index + 1));
            }
        }
        self
    }

    /// Deletes the table and all that is in it. One that is absent is no error.
    pub fn delete_table(&mut self, family: Family, name: &str) -> &mut Self {
        self.push(message::destroy_table(family, name), Step::DestroyTable(name.into()))
    }

    /// Puts an element in. One with that key is `EEXIST`, whatever its value.
    pub fn add_element(&mut self, family: Family, table: &str, element: &Element) -> &mut Self {
        self.element(family, table, Verb::Add, element)
    }

    /// Puts an element in, unless it is there already. One with that key and another value is `EEXIST`.
    pub fn put_element(&mut self, family: Family, table: &str, element: &Element) -> &mut Self {
        self.element(family, table, Verb::Put, element)
    }

    /// Takes an element out. One that is absent is no error; a set or table that is absent is `ENOENT`.
    pub fn delete_element(&mut self, family: Family, table: &str, element: &Element) -> &mut Self {
        self.element(family, table, Verb::Destroy, element)
    }

    /// Whether the batch does nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.pending.is_none()
    }

    /// The same in the words of kernels before 6.3, which [`super::Nft::commit`] falls back to by itself:
    /// they cannot delete what may be absent, so it is created first.
    #[must_use]
    pub fn portable(self) -> Self {
        let mut steps = Vec::new();
        for (message, step) in self.finish().steps {
            match message::without_destroy(&message) {
                Some([create, delete]) => steps.extend([(create, step.clone()), (delete, step)]),
                None => steps.push((message, step)),
            }
        }
        Self { steps, ..Self::default() }
    }

    fn element(&mut self, family: Family, table: &str, verb: Verb, element: &Element) -> &mut Self {
        if let Some(pending) = &mut self.pending
            && (pending.family, pending.verb) == (family, verb)
            && pending.table == table
            && pending.elements.len() < ELEMENTS
            && pending.elements.first().is_some_and(|first| first.set == element.set)
        {
            pending.elements.push(element.clone());
        } else {
            self.flush();
            self.pending =
                Some(Pending { family, table: table.into(), verb, elements: vec![element.clone()] });
        }
        self
    }

    fn push(&mut self, message: Vec<u8>, step: Step) -> &mut Self {
        self.flush();
        self.steps.push((message, step));
        self
    }

    fn flush(&mut self) {
        if let Some(Pending { family, table, verb, elements }) = self.pending.take() {
            let message = message::elements(family, &table, verb, &elements);
            self.steps.push((message, Step::Elements(verb, elements)));
        }
    }

    /// With nothing pending any more.
    pub(super) fn finish(mut self) -> Self {
        self.flush();
        self
    }

    /// How many steps it has, all of them finished.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// The bytes of the whole transaction: what begins it, a message for each step, what ends it.
    pub(super) fn serialize(&self) -> Vec<u8> {
        let mut bytes = message::batch_begin();
        let mut start = 0;
        for (message, _) in &self.steps {
            start = bytes.len();
            bytes.extend_from_slice(message);
        }
        // Acknowledgements of all would overflow the socket's buffer; refusals come unasked.
        acknowledge(&mut bytes[start..]);
        bytes.extend(message::batch_end());
        bytes
    }

    /// The error of the step with that index; of the transaction as a whole where there is none.
    pub(super) fn error(&self, index: Option<usize>, refusal: Refusal) -> NftError {
        let found = index.and_then(|index| self.steps.get(index));
        let step = match found {
            Some((message, Step::Elements(verb, elements))) => {
                let culprit = refusal.offset.and_then(|offset| element_at(message, offset));
                // A range is two of the message's.
                let own =
                    elements.iter().enumerate().flat_map(|(own, one)| repeat_n(own, message::count(one)));
                describe_elements(*verb, elements, culprit.and_then(|culprit| own.clone().nth(culprit)))
            }
            Some((_, step)) => step.to_string(),
            None => "commit the rules".into(),
        };
        let destroys = matches!(found, Some((_, Step::DestroyTable(_) | Step::Elements(Verb::Destroy, _))));
        let of_timeout = matches!(found, Some((_, Step::Timeout(_))));
        NftError { refusal, step, destroys, of_timeout }
    }
}

fn describe_elements(verb: Verb, elements: &[Element], culprit: Option<usize>) -> String {
    let verb = match verb {
        Verb::Add | Verb::Put => "add",
        Verb::Destroy => "delete",
    };
    let only = if elements.len() == 1 { elements.first() } else { None };
    match (culprit.and_then(|index| elements.get(index)).or(only), elements.first()) {
        (Some(element), _) => format!("{verb} element {} {{ {element} }}", element.set),
        (None, Some(first)) => format!("{verb} {} elements of {}", elements.len(), first.set),
        (None, None) => format!("{verb} no elements"),
    }
}

/// Which element of the message the byte at `offset` belongs to.
fn element_at(step: &[u8], offset: usize) -> Option<usize> {
    const NFGENMSG: usize = 4;
    const NLA: usize = 4;
    let mut position = HEADER + NFGENMSG;
    for (kind, value) in attributes(step.get(position..)?) {
        position += NLA;
        if kind != message::NFTA_SET_ELEM_LIST_ELEMENTS {
            position += align(value.len());
            continue;
        }
        for (index, (_, element)) in attributes(value).enumerate() {
            position += NLA + align(element.len());
            if offset < position {
                return Some(index);
            }
        }
    }
    None
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateTable(name) => write!(f, "create table {name}"),
            Self::DestroyTable(name) => write!(f, "delete table {name}"),
            Self::Timeout(name) => write!(f, "create ct timeout {name}"),
            Self::Set(name) => write!(f, "create set {name}"),
            Self::Chain(name) => write!(f, "create chain {name}"),
            Self::Rule(chain, number) => write!(f, "create rule {number} of chain {chain}"),
            Self::Elements(verb, elements) => f.write_str(&describe_elements(*verb, elements, None)),
        }
    }
}
