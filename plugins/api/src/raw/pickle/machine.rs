//! The stack machine that a pickle is a program for, which calls nothing. Knows no file.

use std::collections::HashMap;

use super::{Global, Id, Pickle, Storage, Value, View, global};

/// Most instructions of a pickle. A state dict of a thousand tensors has fifty thousand.
const STEPS_MAX: usize = 1_000_000;

/// Reads the pickle at `at` and moves `at` behind it.
pub(in super::super) fn read<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Pickle<'a>, String> {
    let mut machine = Machine {
        input: Input { bytes, at: *at },
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    for _ in 0..STEPS_MAX {
        let place = machine.input.at;
        let code = machine.input.take(1)?[0];
        if code == b'.' {
            let root = machine.pop()?;
            *at = machine.input.at;
            return Ok(Pickle { values: machine.values, root });
        }
        machine.step(code).map_err(|reason| format!("{reason} (instruction {code:#04x} at byte {place})"))?;
    }
    Err(format!("its pickle has more than {STEPS_MAX} instructions"))
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end)).ok_or("its pickle is cut short")?;
        self.at += len;
        Ok(taken)
    }

    /// A length or number of `width` bytes, least byte first.
    fn number(&mut self, width: usize) -> Result<usize, String> {
        let value = self.take(width)?.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).map_err(|error| error.to_string())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|byte| *byte == b'\n').ok_or("its pickle is cut short")?;
        let line = std::str::from_utf8(&rest[..len]).map_err(|_| "a name in its pickle is no text")?;
        self.at += len + 1;
        Ok(line)
    }
}

struct Machine<'a> {
    input: Input<'a>,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
}

impl<'a> Machine<'a> {
    /// One instruction.
    fn step(&mut self, code: u8) -> Result<(), String> {
        match code {
            0x80 => self.input.take(1).map(drop), // PROTO
            0x95 => self.input.take(8).map(drop), // FRAME
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.items().map(drop),
            b'2' => {
                let top = *self.stack.last().ok_or("its stack is empty")?;
                self.stack.push(top);
                Ok(())
            }
            b'N' | 0x88 | 0x89 => self.push(Value::Inert), // None, True, False
            b'G' => {
                self.input.take(8)?; // a float
                self.push(Value::Inert)
            }
            b'J' => {
                let bytes = self.input.take(4)?;
                let value = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                self.push(Value::Int(value.into()))
            }
            b'K' => self.integer(1),
            b'M' => self.integer(2),
            0x8A => self.long(1),
            0x8B => self.long(4),
            b'U' | 0x8C => self.text(1),
            b'T' | b'X' => self.text(4),
            0x8D => self.text(8),
            b'C' => self.bytes(1),
            b'B' => self.bytes(4),
            0x8E => self.bytes(8),
            b')' | b']' | 0x8F => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b't' | b'l' | 0x91 => {
                let items = self.items()?;
                self.push(Value::List(items))
            }
            0x85..=0x87 => self.tuple(usize::from(code - 0x84)),
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])
            }
            b'e' | 0x90 => {
                let items = self.items()?;
                self.extend(items)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(&[key, value])
            }
            b'u' => {
                let items = self.items()?;
                self.insert(&items)
            }
            b'd' => {
                let items = self.items()?;
                self.push(Value::Dict(Vec::new()))?;
                self.insert(&items)
            }
            b'h' => self.recall(1),
            b'j' => self.recall(4),
            b'q' => self.remember(1),
            b'r' => self.remember(4),
            0x94 => {
                let top = *self.stack.last().ok_or("its stack is empty")?;
                self.memo.insert(self.memo.len(), top);
                Ok(())
            }
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.push(Value::Global(global(module, name)?))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.value(module), self.value(name)) {
                    (&Value::Text(module), &Value::Text(name)) => {
                        let known = global(module, name)?;
                        self.push(Value::Global(known))
                    }
                    _ => Err("its pickle takes a name that is no text".into()),
                }
            }
            b'R' | 0x81 => self.call(),
            b'b' => self.pop().map(drop), // a state, such as state_dict's _metadata
            b'Q' => self.storage(),
            _ => Err("its pickle does what no state dict needs".into()),
        }
    }

    fn value(&self, id: Id) -> &Value<'a> {
        self.values.get(id).unwrap_or(&Value::Inert)
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    /// The topmost value; those under a mark are out of reach.
    fn pop(&mut self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("its stack is empty".into());
        }
        self.stack.pop().ok_or_else(|| "its stack is empty".into())
    }

    /// All values above the last mark, and the mark.
    fn items(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len()).ok_or("its pickle lacks a mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Result<&mut Value<'a>, String> {
        let id = *self.stack.last().ok_or("its stack is empty")?;
        self.values.get_mut(id).ok_or_else(|| "its stack is empty".into())
    }

    fn integer(&mut self, width: usize) -> Result<(), String> {
        let value = self.input.number(width)?;
        self.push(Value::Int(i64::try_from(value).map_err(|error| error.to_string())?))
    }

    fn long(&mut self, width: usize) -> Result<(), String> {
        let len = self.input.number(width)?;
        let bytes = self.input.take(len)?;
        if len > 8 {
            return self.push(Value::Bytes(bytes));
        }
        let sign = if bytes.last().is_some_and(|byte| *byte >= 0x80) { 0xFF } else { 0 };
        let mut whole = [sign; 8];
        whole[..len].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(whole)))
    }

    fn text(&mut self, width: usize) -> Result<(), String> {
        let len = self.input.number(width)?;
        let bytes = self.input.take(len)?;
        self.push(std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text))
    }

    fn bytes(&mut self, width: usize) -> Result<(), String> {
        let len = self.input.number(width)?;
        let bytes = self.input.take(len)?;
        self.push(Value::Bytes(bytes))
    }

    fn tuple(&mut self, len: usize) -> Result<(), String> {
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::List(items))
    }

    fn extend(&mut self, items: Vec<Id>) -> Result<(), String> {
        match self.top()? {
            Value::List(list) => list.extend(items),
            Value::Inert => {}
            _ => return Err("its pickle appends to what is no list".into()),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Result<(), String> {
        match self.top()? {
            Value::Dict(dict) => dict.extend(items.as_chunks::<2>().0.iter().map(|[key, value]| (*key, *value))),
            Value::Inert => {}
            _ => return Err("its pickle puts a key into what is no dictionary".into()),
        }
        Ok(())
    }

    fn recall(&mut self, width: usize) -> Result<(), String> {
        let number = self.input.number(width)?;
        let id = *self.memo.get(&number).ok_or("its pickle recalls what it did not remember")?;
        self.stack.push(id);
        Ok(())
    }

    fn remember(&mut self, width: usize) -> Result<(), String> {
        let number = self.input.number(width)?;
        let top = *self.stack.last().ok_or("its stack is empty")?;
        self.memo.insert(number, top);
        Ok(())
    }

    /// REDUCE and NEWOBJ: a known name with its arguments becomes a value.
    fn call(&mut self) -> Result<(), String> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let &Value::Global(known) = self.value(callee) else { return Err("its pickle calls what is no name".into()) };
        let Value::List(arguments) = self.value(arguments) else {
            return Err("its pickle calls without arguments".into());
        };
        let value = match known {
            Global::Inert => Value::Inert,
            Global::OrderedDict if arguments.is_empty() => Value::Dict(Vec::new()),
            Global::OrderedDict => return Err("an OrderedDict is made of arguments, as Python 2 did".into()),
            Global::Tensor => {
                let view = self.view(arguments).ok_or("a tensor is described as PyTorch does not")?;
                Value::Tensor(Box::new(view))
            }
            Global::Parameter => {
                let tensor = *arguments.first().ok_or("a parameter without a tensor")?;
                self.stack.push(tensor);
                return Ok(());
            }
            Global::Storage(_) => return Err("its pickle makes a storage by itself".into()),
        };
        self.push(value)
    }

    /// `(storage, offset, shape, strides, ...)`.
    fn view(&self, arguments: &[Id]) -> Option<View<'a>> {
        let [storage, offset, shape, strides, ..] = arguments else { return None };
        let Value::Storage(storage) = self.value(*storage) else { return None };
        let whole = |id: &Id| match self.value(*id) {
            Value::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        };
        let all = |id: &Id| match self.value(*id) {
            // PyTorch has at most 64 dimensions.
            Value::List(items) if items.len() <= 64 => items.iter().map(whole).collect::<Option<Vec<usize>>>(),
            _ => None,
        };
        Some(View { storage: *storage, offset: whole(offset)?, shape: all(shape)?, strides: all(strides)? })
    }

    /// BINPERSID: `('storage', type, key, place, count)`, in old files with a view of it, which nobody writes any more.
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let found = match self.value(id) {
            Value::List(items) if (5..=6).contains(&items.len()) => {
                let part = |at: usize| items.get(at).map_or(&Value::Inert, |id| self.value(*id));
                match (part(0), part(1), part(2), part(4), part(5)) {
                    (
                        Value::Text("storage"),
                        Value::Global(Global::Storage(number)),
                        Value::Text(key),
                        Value::Int(count),
                        Value::Inert,
                    ) => usize::try_from(*count).ok().map(|count| Storage { key, number: *number, count }),
                    _ => None,
                }
            }
            _ => None,
        };
        self.push(Value::Storage(found.ok_or("a storage is described as PyTorch does not")?))
    }
}
