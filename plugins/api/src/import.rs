//! From the named tensors of a file to the weights of a network. Knows no file format and no layer.
//!
//! Whose names the tensors carry is told by how many of them fit. Every tensor of the network must be found with its shape,
//! and every tensor of the file must be used or explained; anything else is an error that lists all of it. PyTorch's layouts
//! are ours; what Keras stores otherwise is turned in `keras.rs`, the first convolution and the normalization in `stem.rs`.

mod error;
mod keras;
mod report;
mod stem;

use std::collections::{BTreeMap, BTreeSet};

use crate::fill;
use crate::raw::{Bag, RawTensor};
use crate::spec::{BackboneSpec, Convention, Dialect, Program};
use crate::weights::Weights;

pub use error::{Broken, ImportError, Misshapen, Unfit};
pub use report::{Dropped, Report, Used};
pub use stem::{CAFFE_MEAN, CAFFE_STD, Normalization, adapt_stem, for_windows};

/// Whose names a file carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// torchvision's, which are ours; timm's for networks that torchvision lacks.
    Torch,
    /// timm's, or those of an older PyTorch file, where they differ.
    Timm,
    /// Those of `keras.applications`, with TensorFlow's layouts.
    Keras,
}

impl Names {
    /// The word used on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Names::Torch => "torch",
            Names::Timm => "timm",
            Names::Keras => "keras",
        }
    }
}

/// What is imported into: the part of a [`BackboneSpec`] that counts here.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name of the backbone.
    pub backbone: &'static str,
    /// Names and shapes of all weights in the order of the network.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Name of the first convolution's weight.
    pub first_conv: &'static str,
    /// Prefix of the head.
    pub classifier: &'static str,
    /// Prefixes of tensors that are no part of the network.
    pub left_out: &'static [&'static str],
    /// Other programs' names.
    pub dialects: &'static [Dialect],
    /// Channel means that PyTorch's weights expect of an input in 0..1.
    pub mean: [f32; 3],
    /// Channel deviations, likewise.
    pub std: [f32; 3],
}

impl Target {
    /// That of a backbone with a number of windows.
    pub fn of(spec: &BackboneSpec, windows: usize) -> Target {
        Target {
            backbone: spec.name,
            shapes: (spec.shapes)(windows),
            first_conv: spec.first_conv,
            classifier: spec.classifier,
            left_out: spec.left_out,
            dialects: spec.dialects,
            mean: spec.mean,
            std: spec.std,
        }
    }

    fn is_classifier(&self, name: &str) -> bool {
        name.strip_prefix(self.classifier).is_some_and(|rest| rest.starts_with('.'))
    }
}

/// What may be chosen.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whose names; none: those that fit best.
    pub names: Option<Names>,
    /// What the weights expect of their input; none: what is known of the file's kind.
    pub normalization: Option<Normalization>,
    /// Keep the file's head, which must have six units in label order.
    pub keep_head: bool,
    /// Seed of a fresh head.
    pub seed: u64,
}

/// Weights with what is known of their use.
#[derive(Clone, Debug)]
pub struct Imported {
    /// With our names and layouts; the first convolution fits the number of windows.
    pub weights: Weights,
    /// What became of everything.
    pub report: Report,
    /// Whose names the file carried.
    pub names: Names,
    /// Whose arithmetic fits, as far as the names tell: timm's `tf_` networks carry timm's names and need Keras' arithmetic.
    pub convention: Convention,
    /// Mean for each window, of an input in 0..1.
    pub mean: Vec<f32>,
    /// Deviation for each window.
    pub std: Vec<f32>,
    /// What mean and deviation stand for.
    pub normalization: &'static str,
}

/// Prefixes that programs put before all names: DataParallel, Lightning, `torch.compile`, and detection frameworks.
const PREFIXES: [&str; 4] = ["module.", "model.", "_orig_mod.", "backbone."];

/// Makes weights for a network out of a file's tensors. `file` is for messages.
///
/// # Errors
/// Everything of the network that is missing, misshapen or not finite, and everything of the file that nothing explains.
pub fn import(target: &Target, bag: &Bag<'_>, file: &str, options: &Options) -> Result<Imported, ImportError> {
    let mut work = Work { target, options, report: Report::default(), unfit: Unfit::default(), taken: BTreeSet::new() };
    work.report.notes.extend(bag.notes.iter().cloned());
    work.report.dropped.extend(bag.others.iter().map(|name| (name.clone(), Dropped::NoTensor)));
    let tensors = work.without_prefixes(bag);
    let form = choose(target, &tensors, options, file)?;
    work.unfit.fitting = form.fitting(target, &tensors);
    let mut weights = work.gather(&form, &tensors);
    keras::absorb_biases(&mut work, &form, &tensors, &mut weights);
    work.explain_rest(&form, &tensors);
    if !work.unfit.is_empty() {
        let unfit = Unfit { backbone: target.backbone, names: form.names.name(), report: work.report, ..work.unfit };
        return Err(ImportError::Unfit { file: file.to_owned(), unfit: Box::new(unfit) });
    }
    let chosen = options.normalization.or_else(|| stem::usual(target, form.names, &tensors));
    let (mean, std) = stem::finish(target, chosen, &mut weights, &mut work.report);
    let convention = if form.names == Names::Keras { Convention::Keras } else { Convention::Torch };
    let (report, names) = (work.report, form.names);
    Ok(Imported {
        weights,
        report,
        names,
        convention,
        mean,
        std,
        normalization: chosen.map_or("the backbone's", Normalization::name),
    })
}

/// The file's tensors by the names that count.
type Tensors<'b, 'a> = BTreeMap<&'b str, &'b RawTensor<'a>>;

/// One way to read a file's names.
struct Form {
    names: Names,
    rename: Option<fn(&str) -> Option<String>>,
}

impl Form {
    /// The file's name of one of our layers.
    fn layer(&self, ours: &str) -> Option<String> {
        match (self.names, self.rename) {
            (Names::Keras, Some(rename)) => rename(ours),
            (_, Some(rename)) => Some(rename(ours).unwrap_or_else(|| ours.to_owned())),
            (_, None) => Some(ours.to_owned()),
        }
    }

    /// The file's name of one of our tensors, if it is there.
    fn find(&self, target: &Target, tensors: &Tensors<'_, '_>, name: &str, shape: &[usize]) -> Option<String> {
        let (prefix, last) = name.rsplit_once('.')?;
        let layer = self.layer(prefix)?;
        if self.names == Names::Keras {
            let names = keras::variables(target, prefix, last, shape).iter().map(|word| format!("{layer}/{word}"));
            return names.into_iter().find(|name| tensors.contains_key(name.as_str()));
        }
        let name = format!("{layer}.{last}");
        tensors.contains_key(name.as_str()).then_some(name)
    }

    /// How many of the network's tensors the file has by name, of how many.
    fn fitting(&self, target: &Target, tensors: &Tensors<'_, '_>) -> (usize, usize) {
        let found = target.shapes.iter().filter(|(name, shape)| self.find(target, tensors, name, shape).is_some());
        (found.count(), target.shapes.len())
    }
}

fn choose(target: &Target, tensors: &Tensors<'_, '_>, options: &Options, file: &str) -> Result<Form, ImportError> {
    let mut forms = vec![Form { names: Names::Torch, rename: None }];
    forms.extend(target.dialects.iter().map(|dialect| Form {
        names: match dialect.program {
            Program::Timm => Names::Timm,
            Program::Keras => Names::Keras,
        },
        rename: Some(dialect.rename),
    }));
    // Where timm's names are ours, asking for them is asking for ours.
    if !forms.iter().any(|form| form.names == Names::Timm) {
        forms.push(Form { names: Names::Timm, rename: None });
    }
    forms.retain(|form| options.names.is_none_or(|names| form.names == names));
    let mut best: Option<(usize, Form)> = None;
    for form in forms {
        let (fitting, _) = form.fitting(target, tensors);
        if best.as_ref().is_none_or(|(most, _)| fitting > *most) {
            best = Some((fitting, form));
        }
    }
    best.map(|(_, form)| form).ok_or_else(|| ImportError::UnknownNames {
        file: file.to_owned(),
        backbone: target.backbone,
        names: options.names.map_or("other", Names::name),
    })
}

/// What is being gathered.
struct Work<'t> {
    target: &'t Target,
    options: &'t Options,
    report: Report,
    unfit: Unfit,
    /// Names of the file that are used.
    taken: BTreeSet<String>,
}

impl Work<'_> {
    fn without_prefixes<'b, 'a>(&mut self, bag: &'b Bag<'a>) -> Tensors<'b, 'a> {
        let mut tensors: Tensors<'b, 'a> = bag.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let shared = |tensors: &Tensors<'_, '_>| {
            PREFIXES.into_iter().find(|prefix| tensors.keys().all(|name| name.starts_with(prefix)))
        };
        while let Some(prefix) = shared(&tensors).filter(|_| !tensors.is_empty()) {
            self.report.notes.push(format!("all names began with `{prefix}`, which was taken off"));
            tensors =
                tensors.into_iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor))).collect();
        }
        tensors
    }

    /// Every tensor of the network, as far as the file has it.
    fn gather(&mut self, form: &Form, tensors: &Tensors<'_, '_>) -> Weights {
        let mut weights = Weights::new();
        let target = self.target;
        for (name, shape) in &target.shapes {
            let is_head = target.is_classifier(name);
            if is_head && !self.options.keep_head {
                weights.insert(name.clone(), shape.clone(), fill::untrained(name, shape, self.options.seed));
                let how = format!("a head that was never trained, seed {}", self.options.seed);
                self.report.fresh.push((name.clone(), how));
                continue;
            }
            let found = match form.find(target, tensors, name, shape) {
                None if is_head => keras::lone_head(form, target, tensors, name),
                found => found,
            };
            let Some(from) = found else {
                if form.names == Names::Keras && keras::may_lack(target, tensors, form, name) {
                    weights.insert(name.clone(), shape.clone(), vec![1.0; shape.iter().product()]);
                    self.report.fresh.push((name.clone(), "ones: the BatchNorm has no gamma".into()));
                } else {
                    self.unfit.missing.push(name.clone());
                }
                continue;
            };
            self.take(form, tensors, name, shape, from, &mut weights);
        }
        weights
    }

    fn take(
        &mut self,
        form: &Form,
        tensors: &Tensors<'_, '_>,
        name: &str,
        shape: &[usize],
        from: String,
        weights: &mut Weights,
    ) {
        let Some(tensor) = tensors.get(from.as_str()) else { return };
        let layout = if form.names == Names::Keras { keras::layout(&from, shape) } else { keras::Layout::Ours };
        let found = layout.shape(tensor.shape());
        // A first convolution for three channels is adapted to the number of windows later.
        let mut for_three = shape.to_vec();
        if let Some(channels) = for_three.get_mut(1).filter(|_| name == self.target.first_conv) {
            *channels = 3;
        }
        let fits = |found: &[usize]| found == shape || found == for_three;
        self.taken.insert(from.clone());
        let Some(found) = found.filter(|found| fits(found)) else {
            let (found, expected) = (tensor.shape().to_vec(), layout.expected(shape));
            self.unfit.misshapen.push(Misshapen { name: name.to_owned(), from, found, expected });
            return;
        };
        match tensor.values() {
            Ok(values) => {
                let values = layout.values(values, tensor.shape());
                weights.insert(name, found, values);
                self.report.used.push(Used { name: name.to_owned(), from, done: layout.done() });
            }
            Err(reason) => self.unfit.broken.push(Broken { from, reason }),
        }
    }

    /// Everything of the file that was not used: why, or an error.
    fn explain_rest(&mut self, form: &Form, tensors: &Tensors<'_, '_>) {
        let head = form.layer(self.target.classifier);
        let lone = keras::lone_head(form, self.target, tensors, &format!("{}.weight", self.target.classifier));
        let lone = lone.as_deref().and_then(|name| name.rsplit_once('/')).map(|(layer, _)| layer.to_owned());
        let is_head = |name: &str| {
            let separators = ['.', '/'];
            let below = |layer: &str| name.strip_prefix(layer).is_some_and(|rest| rest.starts_with(separators));
            self.target.is_classifier(name) || [&head, &lone].into_iter().flatten().any(|layer| below(layer))
        };
        for name in tensors.keys().filter(|name| !self.taken.contains(**name)) {
            let why = if name.ends_with("num_batches_tracked") {
                Some(Dropped::Counter)
            } else if self.target.left_out.iter().any(|prefix| name.starts_with(prefix)) {
                Some(Dropped::LeftOut)
            } else if is_head(name) {
                // With --keep-head the head itself was taken; what else stands under its name belongs to no head of ours.
                Some(Dropped::Classifier)
            } else if form.names == Names::Keras {
                keras::explain(name)
            } else {
                None
            };
            match why {
                Some(why) => self.report.dropped.push(((*name).to_owned(), why)),
                None => self.unfit.unexplained.push((*name).to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
