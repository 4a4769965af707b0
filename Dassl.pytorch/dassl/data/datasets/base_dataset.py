"""`Datum`, one labelled image, and `DatasetBase`, what every data set offers to the loaders and trainers."""

import os
import posixpath
import random
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Sequence

from dassl.utils import download_url, mkdir_if_missing

__all__ = ["DatasetBase", "Datum"]


class Datum:
    """One image on disk and what is known of it.

    Module path, class name and the four attribute names are part of the interface: other code stores instances.

    Args:
        impath: path of the image, which must exist.
        label: class, 0..n - 1.
        domain: domain, 0..n - 1.
        classname: the class in words.

    Raises:
        ValueError: `impath` is not a str.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, impath: str = "", label: int = 0, domain: int = 0, classname: str = ""):
        if not isinstance(impath, str):
            raise ValueError(f"impath must be a str, got a {type(impath).__name__}: {impath!r}.")
        if not os.path.isfile(impath):
            raise FileNotFoundError(f'No image at "{impath}"; check the data root and that the data set is complete.')
        self._set(impath, label, domain, classname)

    @classmethod
    def listed(cls, impath: str, label: int = 0, domain: int = 0, classname: str = "") -> "Datum":
        """A Datum of a file that a listing of its folder has shown, so that the disk is not asked once more."""
        datum = cls.__new__(cls)
        datum._set(impath, label, domain, classname)
        return datum

    def _set(self, impath: str, label: int, domain: int, classname: str) -> None:
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    @property
    def impath(self) -> str:
        return self._impath

    @property
    def label(self) -> int:
        return self._label

    @property
    def domain(self) -> int:
        return self._domain

    @property
    def classname(self) -> str:
        return self._classname

    def __repr__(self) -> str:
        return f"Datum({self._impath!r}, {self._label!r}, {self._domain!r}, {self._classname!r})"


class DatasetBase:
    """Lists of images for training (labelled, unlabelled), validation and test, and the names of the classes.

    Readers find their images and pass the lists to `super().__init__`. Class names come from `train_x` alone.

    Raises:
        TypeError: `train_x` is None.
        ValueError: `train_x` is empty, or its labels are not 0..n - 1 without gaps.
    """

    dataset_dir = ""  # folder below the data root
    domains: list[str] = []  # noqa: RUF012 -- names of all domains; subclasses override it

    def __init__(
        self,
        train_x: list[Datum] | None = None,
        train_u: list[Datum] | None = None,
        val: list[Datum] | None = None,
        test: list[Datum] | None = None,
    ):
        reader = type(self).__name__
        if train_x is None:
            raise TypeError(f"{reader} gave no train_x; pass the list of labelled training images.")
        if not train_x:
            raise ValueError(f"{reader} found no training image; check DATASET.ROOT and the split it reads.")
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(train_x)
        self._lab2cname, self._classnames = self.get_lab2cname(train_x)
        # A gap would shift every later class name against its label.
        missing = sorted(set(range(self._num_classes)) - set(self._lab2cname))
        if missing:
            shown = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
            raise ValueError(
                f"{reader} has training images with labels up to {self._num_classes - 1} but none with label {shown}; "
                "number the classes without gaps, or restore the missing images."
            )
        if len(self._lab2cname) > self._num_classes:
            raise ValueError(f"{reader} has training images with negative labels; labels start at 0.")

    @property
    def train_x(self) -> list[Datum]:
        """Labelled training images."""
        return self._train_x

    @property
    def train_u(self) -> list[Datum] | None:
        """Unlabelled training images."""
        return self._train_u

    @property
    def val(self) -> list[Datum] | None:
        """Validation images."""
        return self._val

    @property
    def test(self) -> list[Datum] | None:
        """Test images."""
        return self._test

    @property
    def lab2cname(self) -> dict[int, str]:
        """Label to class name."""
        return self._lab2cname

    @property
    def classnames(self) -> list[str]:
        """Class names by label."""
        return self._classnames

    @property
    def num_classes(self) -> int:
        """Largest label of `train_x` plus one."""
        return self._num_classes

    @staticmethod
    def get_num_classes(data_source: Sequence[Datum]) -> int:
        """Largest label plus one."""
        return max(item.label for item in data_source) + 1

    @staticmethod
    def get_lab2cname(data_source: Sequence[Datum]) -> tuple[dict[int, str], list[str]]:
        """Label to name (the first one seen), and the names in the order of their labels."""
        mapping: dict[int, str] = {}
        for item in data_source:
            mapping.setdefault(item.label, item.classname)
        mapping = dict(sorted(mapping.items()))
        return mapping, list(mapping.values())

    def check_input_domains(self, source_domains: Sequence[str], target_domains: Sequence[str]) -> None:
        """Make sure that both lists name domains of this data set.

        Raises:
            ValueError: a list is empty or names an unknown domain.
        """
        if not source_domains or not target_domains:
            raise ValueError(
                f"{type(self).__name__} needs source and target domains, got {list(source_domains)} and "
                f"{list(target_domains)}; set DATASET.SOURCE_DOMAINS and DATASET.TARGET_DOMAINS."
            )
        self.is_input_domain_valid(source_domains)
        self.is_input_domain_valid(target_domains)

    def is_input_domain_valid(self, input_domains: Sequence[str]) -> None:
        """Make sure that each name is a domain of this data set.

        Raises:
            ValueError: one is not.
        """
        for domain in input_domains:
            if domain not in self.domains:
                raise ValueError(f"{type(self).__name__} has the domains {list(self.domains)}, got {domain!r}.")

    def download_data(self, url: str, dst: str, from_gdrive: bool = True) -> None:
        """Download an archive to `dst` and unpack it beside itself.

        Args:
            url: address of a .zip, .tar or .tar.gz.
            dst: file to write.
            from_gdrive: through `gdown`, which knows Google Drive's pages; else as a plain download.

        Raises:
            NotImplementedError: `dst` has another ending.
            RuntimeError: the download failed.
            ValueError: the archive is damaged, or would write outside of its folder.
        """
        if not dst.endswith((".zip", ".tar", ".tar.gz")):
            raise NotImplementedError(f"can unpack .zip, .tar and .tar.gz, got {dst}")
        folder = os.path.dirname(dst) or "."
        mkdir_if_missing(folder)
        if from_gdrive:
            import gdown  # only here: nothing else needs it

            gdown.download(url, dst, quiet=False)
            if not os.path.isfile(dst):
                raise RuntimeError(f"gdown could not fetch {url}; download it by hand and put it at {dst}.")
        else:
            download_url(url, dst)
        print(f"Extracting {dst}")
        _extract(dst, folder)

    @staticmethod
    def generate_fewshot_dataset(
        *data_sources: list[Datum], num_shots: int = -1, repeat: bool = False
    ) -> list[Datum] | list[list[Datum]] | tuple[list[Datum], ...]:
        """Draw a few images of each class, with Python's global generator.

        Classes are drawn in the order in which they first appear, source by source, one `random.sample` each: with the
        same seed, the same lists and no earlier use of `random`, the picks equal those of every project of the family.

        Args:
            data_sources: one or more lists.
            num_shots: images a class; below 1 returns the input unchanged.
            repeat: a class with fewer images is drawn with repetition; False: it is taken whole, and a line says so.

        Returns:
            One list for one source, a list of lists for several.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        print(f"Creating a {num_shots}-shot dataset")
        output = []
        for data_source in data_sources:
            by_label = _by_label(data_source)
            _report_short(by_label, num_shots, repeat)
            picked: list[Datum] = []
            for items in by_label.values():
                if len(items) >= num_shots:
                    picked += random.sample(items, num_shots)
                elif repeat:
                    picked += random.choices(items, k=num_shots)
                else:
                    picked += items
            output.append(picked)
        return output[0] if len(output) == 1 else output

    def split_dataset_by_label(self, data_source: Sequence[Datum]) -> defaultdict[int, list[Datum]]:
        """Label to its images; labels in the order of their first appearance."""
        return _by_label(data_source)

    def split_dataset_by_domain(self, data_source: Sequence[Datum]) -> defaultdict[int, list[Datum]]:
        """Domain to its images; domains in the order of their first appearance."""
        output = defaultdict(list)
        for item in data_source:
            output[item.domain].append(item)
        return output


def _by_label(data_source: Sequence[Datum]) -> defaultdict[int, list[Datum]]:
    output = defaultdict(list)
    for item in data_source:
        output[item.label].append(item)
    return output


def _report_short(by_label: dict[int, list[Datum]], num_shots: int, repeat: bool) -> None:
    short = [items for items in by_label.values() if len(items) < num_shots]
    if short:
        smallest = min(short, key=len)
        print(
            f"Warning: {len(short)} of {len(by_label)} classes have fewer than {num_shots} images (fewest: "
            f"{smallest[0].classname!r} with {len(smallest)}); they are "
            f"{'drawn with repetition' if repeat else 'taken whole'}."
        )


def _extract(archive: str, folder: str) -> None:
    """Unpack an archive into `folder`; refuse, before writing it, any member that would land elsewhere."""

    def checked(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
        _check_inside(archive, member.name)
        if member.issym():  # counts from the folder of the link, a hard link from the root of the archive
            _check_inside(archive, posixpath.join(posixpath.dirname(member.name), member.linkname))
        elif member.islnk():
            _check_inside(archive, member.linkname)
        return tarfile.data_filter(member, path)  # no devices, no odd permissions, no way out through a link

    try:
        if archive.endswith(".zip"):
            with zipfile.ZipFile(archive) as zipped:
                for name in zipped.namelist():
                    _check_inside(archive, name)
                zipped.extractall(folder)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter=checked)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"Cannot unpack {archive} ({reason}); delete it and download it again.") from error


def _check_inside(archive: str, name: str) -> None:
    path = posixpath.normpath(name.replace("\\", "/"))
    if path.startswith(("/", "../")) or path == ".." or path[1:2] == ":":
        raise ValueError(f"{archive} would write outside of its folder, to {name}; do not trust this archive.")
