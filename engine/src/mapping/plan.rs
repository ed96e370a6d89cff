//! Where a mapping finds its values and where it puts them, for one direction.

use crate::json::RawValue;

/// Levels of a dotted path.
pub(super) const PATH_LEVELS_MAX: usize = 8;

/// One direction of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Sorted by the first name of their paths.
    inputs: Vec<Input>,
    /// How many numbers its inputs have, those that it does not read included.
    pub(super) slots: usize,
    /// The object to write, in the order of the settings.
    pub(super) output: Vec<Node>,
    /// What pointers of failures begin with.
    pub(super) root: &'static [&'static str],
}

/// Where one value comes from.
#[derive(Debug, Clone)]
pub(super) struct Input {
    pub(super) slot: usize,
    first: String,
    rest: Vec<String>,
}

/// A member to write.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// A value, by its number.
    Leaf { name: String, value: usize },
    /// An object around others.
    Branch { name: String, children: Vec<Node> },
}

/// Two paths of which one would have to be a value and an object at once, or twice a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Collision;

impl Plan {
    pub(super) fn new(root: &'static [&'static str]) -> Self {
        Self {
            inputs: Vec::new(),
            slots: 0,
            output: Vec::new(),
            root,
        }
    }

    pub(super) fn read(&mut self, slot: usize, path: &[String]) {
        let (first, rest) = path.split_first().expect("settings refuse an empty path");
        let input = Input {
            slot,
            first: first.clone(),
            rest: rest.to_vec(),
        };
        let at = self
            .inputs
            .partition_point(|other| other.first <= input.first);
        self.inputs.insert(at, input);
    }

    pub(super) fn write(&mut self, value: usize, path: &[String]) -> Result<(), Collision> {
        let (last, branches) = path.split_last().expect("settings refuse an empty path");
        let mut nodes = &mut self.output;
        for name in branches {
            let at = match nodes.iter().position(|node| node.name() == name) {
                Some(at) => at,
                None => {
                    nodes.push(Node::Branch {
                        name: name.clone(),
                        children: Vec::new(),
                    });
                    nodes.len() - 1
                }
            };
            match &mut nodes[at] {
                Node::Branch { children, .. } => nodes = children,
                Node::Leaf { .. } => return Err(Collision),
            }
        }
        if nodes.iter().any(|node| node.name() == last) {
            return Err(Collision);
        }
        nodes.push(Node::Leaf {
            name: last.clone(),
            value,
        });
        Ok(())
    }

    pub(super) fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.inputs.iter()
    }

    /// The inputs that lie in the outermost member `name`.
    pub(super) fn inputs_under(&self, name: &str) -> &[Input] {
        let start = self
            .inputs
            .partition_point(|input| input.first.as_str() < name);
        let same = self.inputs[start..]
            .iter()
            .take_while(|input| input.first == name);
        &self.inputs[start..start + same.count()]
    }
}

impl Input {
    /// The value below the outermost member's value. A `null` on the way clears all that lies
    /// below it.
    pub(super) fn value_in<'d>(
        &self,
        mut value: RawValue<'d>,
    ) -> Result<Option<RawValue<'d>>, &'static str> {
        for name in &self.rest {
            if value.is_null() {
                return Ok(Some(value));
            }
            let object = value.as_object().ok_or("a part of the path is no object")?;
            match object.get(name) {
                Some(next) => value = next,
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        [&self.first]
            .into_iter()
            .chain(&self.rest)
            .map(String::as_str)
    }
}

impl Node {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Leaf { name, .. } | Self::Branch { name, .. } => name,
        }
    }
}
