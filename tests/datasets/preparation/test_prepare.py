"""Data sets prepared from a server on this machine, in the official layouts, with everything that can go wrong."""

import hashlib
import json
import logging
import shutil
import threading
from collections import namedtuple

import pytest
from filelock import FileLock

from datasets.preparation import arrange, plan, prepare
from tests.datasets.preparation import official
from tests.datasets.preparation.official import pack_tar, pack_zip, picture, pictures, split, tree

CALTECH = {"split_zhou_Caltech101.json": split(), "caltech-101.zip": official.caltech101()}
CARS = {"split_zhou_StanfordCars.json": split("car"), "stanford_cars.zip": official.cars()}
EUROSAT = {"EuroSAT.zip": [official.eurosat("2750"), official.eurosat("EuroSAT_RGB")]}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class TestLayouts:
    """The official archives become what the readers expect; everything else stays out."""

    def ready(self, bench, *files: str, **options) -> None:
        outcome = bench.prepare(**options)
        assert (outcome.state, outcome.code, outcome.notes) == (
            "ready",
            0,
            [f"{bench.name} is in {bench.place}."],
        )
        assert [name for name in tree(bench.place) if not name.startswith("archives/")] == sorted(files)

    def test_caltech101(self, bench):
        bench.offer("Caltech101", CALTECH)
        images = "101_ObjectCategories"
        folders = ("BACKGROUND_Google", "Faces", "Faces_easy", "accordion")
        self.ready(bench, *(f"{images}/{name}/image_0001.jpg" for name in folders), "split_zhou_Caltech101.json")
        assert (bench.place / images / "accordion/image_0001.jpg").read_bytes() == picture(0)
        assert tree(bench.place / "archives") == ["caltech-101.zip"]

    @pytest.mark.parametrize("first", [True, False])
    def test_eurosat_with_either_folder(self, bench, first):
        bench.offer("EuroSAT", EUROSAT)
        if not first:
            bench.server.faults["EuroSAT.zip"] = [404]
        self.ready(bench, "2750/AnnualCrop/AnnualCrop_1.jpg", "2750/SeaLake/SeaLake_1.jpg")
        assert len(bench.server.requests) == (1 if first else 2)

    def test_aircraft(self, bench):
        bench.offer("FGVCAircraft", {"fgvc-aircraft-2013b.tar.gz": official.aircraft()})
        lists = [f"images_variant_{part}.txt" for part in ("train", "val", "test")]
        self.ready(bench, "images/0034309.jpg", "images/0034958.jpg", "variants.txt", *lists)

    def test_pets_from_two_archives(self, bench):
        images, annotations = official.pets()
        bench.offer("OxfordPets", {"images.tar.gz": [images], "annotations.tar.gz": [annotations]})
        self.ready(bench, "images/Abyssinian_1.jpg", "annotations/trainval.txt")

    def test_cars_from_the_mirror(self, bench):
        bench.offer("StanfordCars", CARS)
        self.ready(bench, "cars_train/00001.jpg", "cars_test/00001.jpg", "split_zhou_StanfordCars.json")

    def test_sketch(self, bench):
        bench.offer("ImageNetSketch", {"ImageNet-Sketch.zip": pack_zip(pictures("sketch/n01440764/sketch_4.JPEG"))})
        self.ready(bench, "images/n01440764/sketch_4.JPEG")

    def test_v2_is_a_plain_tar_under_another_name(self, bench):
        top = "imagenetv2-matched-frequency-format-val"
        packed = pack_tar(pictures(f"{top}/0/a.jpeg", f"{top}/999/b.jpeg"))
        bench.offer("ImageNetV2", {"imagenetv2-matched-frequency.tar.gz": packed})
        self.ready(bench, f"{top}/0/a.jpeg", f"{top}/999/b.jpeg")

    @pytest.mark.parametrize(
        ("name", "file", "inside", "outside"),
        [
            ("OxfordFlowers", "102flowers.tgz", "jpg/image_00001.jpg", "jpg/image_00001.jpg"),
            (
                "DescribableTextures",
                "dtd-r1.0.1.tar.gz",
                "dtd/images/banded/banded_0002.jpg",
                "images/banded/banded_0002.jpg",
            ),
            ("SUN397", "sun397.zip", "sun397/SUN397/a/abbey/sun_a.jpg", "SUN397/a/abbey/sun_a.jpg"),
            ("UCF101", "ucf101.zip", "ucf101/UCF-101-midframes/Archery/v.jpg", "UCF-101-midframes/Archery/v.jpg"),
            ("ImageNetA", "imagenet-a.tar", "imagenet-a/n01498041/a.jpg", "imagenet-a/n01498041/a.jpg"),
            ("ImageNetR", "imagenet-r.tar", "imagenet-r/n01443537/art_0.jpg", "imagenet-r/n01443537/art_0.jpg"),
        ],
    )
    def test_the_others(self, bench, name, file, inside, outside):
        packed = (pack_zip if file.endswith("zip") else pack_tar)(pictures(inside))
        bench.offer(name, {file: [packed]})
        self.ready(bench, outside)

    def test_food(self, bench):
        files = pictures("food-101/images/apple_pie/1.jpg") | {"food-101/meta/classes.txt": b"apple_pie\n"}
        files |= {"food-101/license_agreement.txt": b"terms", "food-101/README.txt": b"read me"}
        bench.offer("Food101", {"food-101.tar.gz": pack_tar(files, "gz")})
        self.ready(bench, "images/apple_pie/1.jpg", "meta/classes.txt", "license_agreement.txt")

    def test_only_listed_pictures(self, bench):
        files = pictures("sun397/SUN397/a/abbey/train.jpg", "sun397/SUN397/a/abbey/other.jpg")
        files |= {"sun397/ClassName.txt": b"/a/abbey\n"}
        listed = json.dumps({"train": [["a/abbey/train.jpg", 0, "abbey"]], "val": [], "test": []}).encode()
        bench.offer("SUN397", {"split_zhou_SUN397.json": listed, "sun397.zip": pack_zip(files)})
        self.ready(bench, "SUN397/a/abbey/train.jpg", "ClassName.txt", "split_zhou_SUN397.json", listed_only=True)

    def test_only_listed_pictures_of_an_archive_in_an_archive(self, bench):
        listed = json.dumps({"train": [["Faces/image_0001.jpg", 0, "face"]], "val": [], "test": []}).encode()
        bench.offer("Caltech101", CALTECH | {"split_zhou_Caltech101.json": listed})
        self.ready(bench, "101_ObjectCategories/Faces/image_0001.jpg", "split_zhou_Caltech101.json", listed_only=True)

    def test_only_listed_pictures_where_there_is_no_split(self, bench):
        bench.offer("EuroSAT", EUROSAT)
        self.ready(bench, "2750/AnnualCrop/AnnualCrop_1.jpg", "2750/SeaLake/SeaLake_1.jpg", listed_only=True)


class TestAgain:
    """What is there is left alone; what was interrupted goes on."""

    def test_a_second_time_nothing_happens(self, bench):
        bench.offer("Caltech101", CALTECH)
        bench.prepare()
        asked = len(bench.server.requests)
        outcome = bench.prepare()
        assert (outcome.state, outcome.code) == ("already there", 0)
        assert outcome.notes == [f"{bench.place} has all that Caltech101 needs."]
        assert len(bench.server.requests) == asked

    def test_what_is_in_place_is_not_fetched_again(self, bench):
        bench.offer("StanfordCars", CARS)
        bench.place.mkdir(parents=True)
        (bench.place / "split_zhou_StanfordCars.json").write_bytes(split("car"))
        (bench.place / "cars_test").mkdir()
        (bench.place / "cars_test/mine.jpg").write_bytes(b"mine")
        assert bench.prepare().code == 0
        assert bench.server.asked("split_zhou_StanfordCars.json") == []
        assert tree(bench.place / "cars_test") == ["mine.jpg"]
        assert tree(bench.place / "cars_train") == ["00001.jpg"]

    def test_a_cut_download_goes_on(self, bench):
        bench.offer("EuroSAT", EUROSAT)
        content = EUROSAT["EuroSAT.zip"][0]
        bench.server.faults["EuroSAT.zip"] = ["cut"]
        assert bench.prepare().code == 0
        assert bench.server.asked("EuroSAT.zip") == [None, f"bytes={len(content) // 2}-"]

    def test_an_interrupted_download_goes_on_in_the_next_run(self, bench):
        bench.offer("EuroSAT", {"EuroSAT.zip": EUROSAT["EuroSAT.zip"][:1]})
        content = EUROSAT["EuroSAT.zip"][0]
        bench.server.faults["EuroSAT.zip"] = ["cut", 404]
        assert bench.prepare().code == 3
        assert tree(bench.place) == ["archives/EuroSAT.zip.part", "archives/EuroSAT.zip.part.json"]
        made = plan.make_plan(bench.dataset, bench.options())
        assert made.download == len(content) - len(content) // 2
        bench.server.requests.clear()
        assert bench.prepare().code == 0
        assert bench.server.asked("EuroSAT.zip") == [f"bytes={len(content) // 2}-"]
        assert tree(bench.place / "archives") == ["EuroSAT.zip"]

    def test_killed_between_download_and_unpacking(self, bench, monkeypatch):
        bench.offer("EuroSAT", EUROSAT)

        def kill(*args, **kwargs):
            raise SystemExit

        with monkeypatch.context() as patched:
            patched.setattr(prepare, "unpack_into", kill)
            with pytest.raises(SystemExit):
                bench.prepare()
        bench.server.requests.clear()
        assert bench.prepare().code == 0
        assert bench.server.requests == []

    def test_interrupted_in_the_middle_of_unpacking(self, bench, monkeypatch):
        bench.offer("EuroSAT", EUROSAT)
        real = arrange.unpack

        def interrupt(archive, folder, place, *args):
            real(archive, folder, place, *args)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(arrange, "unpack", interrupt)
            with pytest.raises(KeyboardInterrupt):
                bench.prepare()
        assert tree(bench.place) == ["archives/EuroSAT.zip"]
        assert [path.name for path in bench.place.iterdir()] == ["archives"]
        assert bench.prepare().code == 0

    def test_leftovers_of_a_killed_process_are_removed(self, bench):
        bench.offer("EuroSAT", EUROSAT)
        leftover = bench.place / ".unpacking-abc" / "2750"
        leftover.mkdir(parents=True)
        (leftover / "half.jpg").write_bytes(b"1")
        assert bench.prepare().code == 0
        assert sorted(path.name for path in bench.place.iterdir()) == ["2750", "archives"]

    def test_archives_are_deleted_only_when_asked(self, bench):
        bench.offer("Caltech101", CALTECH)
        mine = bench.place / "mine.zip"
        mine.parent.mkdir(parents=True)
        mine.write_bytes(b"mine")
        assert bench.prepare(delete_archives=True).code == 0
        assert not (bench.place / "archives").exists()
        assert mine.exists()

    def test_archives_are_deleted_later(self, bench):
        bench.offer("Caltech101", CALTECH)
        bench.prepare()
        assert tree(bench.place / "archives") == ["caltech-101.zip"]
        assert bench.prepare(delete_archives=True).state == "already there"
        assert tree(bench.place / "archives") == []

    def test_two_processes_take_turns(self, bench, caplog):
        bench.offer("EuroSAT", EUROSAT)
        bench.root.mkdir()
        held, release = threading.Event(), threading.Event()

        def hold():
            with FileLock(bench.root / ".eurosat.lock"):
                held.set()
                release.wait()

        other = threading.Thread(target=hold)
        other.start()
        held.wait()
        threading.Timer(0.1, release.set).start()
        assert bench.prepare().code == 0
        other.join()
        assert "Another process is preparing EuroSAT; waiting for it." in caplog.text

    def test_another_process_was_faster(self, bench, monkeypatch):
        """It is looked again once the lock is ours."""
        bench.offer("EuroSAT", EUROSAT)
        real = prepare._lock

        def slow(dataset, options):
            monkeypatch.setattr(prepare, "_lock", real)
            assert bench.prepare().state == "ready"
            return real(dataset, options)

        monkeypatch.setattr(prepare, "_lock", slow)
        assert bench.prepare().code == 0
        assert len(bench.server.requests) == 1


class TestOwnArchives:
    """What the user has is taken before anything is downloaded."""

    @pytest.mark.parametrize("place", ["archives", "archives/eurosat", "data/eurosat", "data/eurosat/archives"])
    @pytest.mark.parametrize("name", ["EuroSAT.zip", "EuroSAT_RGB.zip"])
    def test_places_and_names(self, bench, place, name):
        bench.offer("EuroSAT", EUROSAT)
        folder = bench.folder / place
        folder.mkdir(parents=True)
        (bench.folder / "archives").mkdir(exist_ok=True)
        content = EUROSAT["EuroSAT.zip"][name == "EuroSAT_RGB.zip"]
        (folder / name).write_bytes(content)
        assert bench.prepare(archives=bench.folder / "archives", offline=True, delete_archives=True).code == 0
        assert bench.server.requests == []
        assert (folder / name).exists() == (place != "data/eurosat/archives")  # only our own folder is emptied

    def test_single_files_are_copied(self, bench):
        bench.offer("Caltech101", CALTECH)
        mine = bench.folder / "mine"
        mine.mkdir()
        for name, content in CALTECH.items():
            (mine / name).write_bytes(content)
        assert bench.prepare(archives=mine, offline=True).code == 0
        assert tree(mine) == sorted(CALTECH)

    def test_the_original_archives_of_cars(self, bench):
        packed = {name: pack_tar(pictures(f"{name}/00001.jpg"), "gz") for name in ("cars_train", "cars_test")}
        files = CARS | {f"{name}.tgz": content for name, content in packed.items()}
        bench.offer("StanfordCars", files)
        mine = bench.folder / "mine"
        mine.mkdir()
        for name, content in packed.items():
            (mine / f"{name}.tgz").write_bytes(content)
        assert bench.prepare(archives=mine).code == 0
        assert [name for name, _ in bench.server.requests] == ["split_zhou_StanfordCars.json"]
        assert tree(bench.place / "cars_train") == ["00001.jpg"]

    def test_a_wrong_archive_is_not_used_nor_replaced(self, bench):
        bench.offer("EuroSAT", EUROSAT)
        mine = bench.folder / "EuroSAT.zip"
        mine.write_bytes(b"PK other")
        outcome = bench.prepare(archives=bench.folder)
        first, second = (sha(content) for content in EUROSAT["EuroSAT.zip"])
        assert (outcome.state, outcome.code) == ("incomplete", 4)
        assert outcome.notes[0] == (
            f"{mine} has 8 bytes where {len(EUROSAT['EuroSAT.zip'][0])} were expected; or SHA-256 {sha(b'PK other')} "
            f"where {second} was expected; move it away, or put the right file there."
        )
        assert first != second
        assert mine.read_bytes() == b"PK other"
        assert bench.server.requests == []

    def test_an_archive_without_a_published_digest(self, bench, caplog):
        packed = pack_zip(pictures("UCF-101-midframes/Archery/v.jpg"))
        bench.offer("UCF101", {"ucf101.zip": [b"of the mirror", packed]})
        mine = bench.folder / "UCF-101-midframes.zip"
        mine.write_bytes(packed)
        assert bench.prepare(archives=bench.folder, offline=True).code == 0
        assert f"{mine} is taken unchecked, because no digest of it has been published (" in caplog.text

    def test_the_same_downloaded(self, bench, caplog):
        packed = pack_zip(pictures("UCF-101-midframes/Archery/v.jpg"))
        bench.offer("UCF101", {"ucf101.zip": [b"of the mirror", packed]})
        bench.server.faults["ucf101.zip"] = [404]
        assert bench.prepare().code == 0
        assert "is taken unchecked" in caplog.text
        assert tree(bench.place / "UCF-101-midframes") == ["Archery/v.jpg"]

    def test_offline_says_what_to_bring(self, bench):
        files = dict(CARS)
        for name in ("cars_train", "cars_test"):
            files[f"{name}.tgz"] = pack_tar(pictures(f"{name}/1.jpg"), "gz")
        bench.offer("StanfordCars", files)
        outcome = bench.prepare(offline=True)
        url, place, zipped = bench.server.url, bench.place, CARS["stanford_cars.zip"]
        assert (outcome.state, outcome.code) == ("incomplete", 1)
        assert outcome.notes[:3] == list(bench.dataset.manual)
        assert outcome.notes[3:] == [
            f"Bring split_zhou_StanfordCars.json of {len(split('car'))} B from {url}/split_zhou_StanfordCars.json to "
            f"{place}/split_zhou_StanfordCars.json (SHA-256 {sha(split('car'))}).",
            f"Bring stanford_cars.zip of {len(zipped) / 1000:.1f} kB from {url}/stanford_cars.zip to "
            f"{place}/stanford_cars.zip (SHA-256 {sha(zipped)}).",
            *(
                f"Or instead bring {name} of {len(files[name])} B to {place}/{name} (SHA-256 {sha(files[name])})."
                for name in ("cars_train.tgz", "cars_test.tgz")
            ),
            "Files may also lie in another folder that you name with --archives. Then run: "
            f"python tools/prepare_data.py download StanfordCars --root {bench.root}",
        ]
        assert not bench.root.exists()
        assert bench.server.requests == []


class TestFaults:
    """Servers, files and disks that do not do what they should."""

    def test_wrong_bytes_are_kept_aside_and_the_next_address_is_tried(self, bench, caplog):
        bench.offer("EuroSAT", EUROSAT)
        bench.server.faults["EuroSAT.zip"] = ["wrong"]
        assert bench.prepare().code == 0
        bad = bench.place / "archives/EuroSAT.zip.bad"
        content = EUROSAT["EuroSAT.zip"][0]
        assert bad.read_bytes() == content[::-1]
        assert (
            f"{bench.server.url}/EuroSAT.zip sent a file with SHA-256 {sha(content[::-1])} where {sha(content)} was "
            f"expected; it is kept as {bad}. Trying the next address."
        ) in caplog.text

    def test_wrong_bytes_everywhere(self, bench):
        bench.offer("EuroSAT", {"EuroSAT.zip": EUROSAT["EuroSAT.zip"][:1]})
        bench.server.faults["EuroSAT.zip"] = ["wrong"]
        outcome = bench.prepare()
        assert outcome.code == 4
        assert "sent a file with SHA-256" in outcome.notes[0]

    def test_busy_twice(self, bench):
        bench.offer("EuroSAT", EUROSAT)
        bench.server.faults["EuroSAT.zip"] = [503, 503]
        assert bench.prepare().code == 0
        assert len(bench.server.requests) == 3

    def test_redirected(self, bench):
        bench.offer("EuroSAT", EUROSAT)
        bench.server.faults["EuroSAT.zip"] = ["moved"]
        assert bench.prepare().code == 0
        assert [name for name, _ in bench.server.requests] == ["EuroSAT.zip", "there/EuroSAT.zip"]

    def test_without_ranges(self, bench):
        bench.offer("EuroSAT", EUROSAT)
        bench.server.faults["EuroSAT.zip"] = ["cut", "no range"]
        assert bench.prepare().code == 0

    @pytest.mark.parametrize(
        ("faults", "requests", "reason"),
        [
            ([503] * 9, 4, "could not be downloaded: HTTP status 503 Service Unavailable."),
            ([404], 1, "could not be downloaded: HTTP status 404 Not Found."),
            (
                ["page"],
                1,
                "sent a web page instead of the file; it may have moved, want a login, or be over its quota.",
            ),
        ],
    )
    def test_servers_that_do_not_give_it(self, bench, faults, requests, reason):
        """The rest of the data set comes all the same, and the sentence says what a person can do."""
        bench.offer("Caltech101", CALTECH)
        bench.server.faults["split_zhou_Caltech101.json"] = faults
        dataset = bench.dataset
        if reason.startswith("sent"):  # otherwise the announced size is the first thing to be wrong
            assert dataset.artefacts[0].sources[0].expected.size is None
        outcome = bench.prepare()
        assert (outcome.state, outcome.code) == ("incomplete", 3)
        address = f"{bench.server.url}/split_zhou_Caltech101.json"
        assert outcome.notes == [
            f"{address} {reason} You can get it with a browser from {address} and put it to "
            f"{bench.place}/split_zhou_Caltech101.json (SHA-256 {sha(split())})."
        ]
        assert len(bench.server.asked("split_zhou_Caltech101.json")) == requests
        assert (bench.place / "101_ObjectCategories").is_dir()

    def test_a_mirror_that_is_down(self, bench):
        """Then there are the steps by hand."""
        bench.offer("StanfordCars", CARS)
        bench.server.faults["stanford_cars.zip"] = [404]
        outcome = bench.prepare()
        assert outcome.code == 3
        assert "stanford_cars.zip could not be downloaded: HTTP status 404 Not Found." in outcome.notes[0]
        assert outcome.notes[1:] == list(bench.dataset.manual)
        assert "cars_train.tgz and cars_test.tgz of the original release do as well." in "\n".join(outcome.notes)

    def test_google_drive_refuses(self, bench, monkeypatch):
        bench.offer("Food101", {"split_zhou_Food101.json": split()})
        text = bench.sources.read_text()
        bench.sources.write_text(text.replace(f"{bench.server.url}/split_zhou_Food101.json", "gdrive:ABC"))

        def refuse(address, part, quiet):
            raise RuntimeError("Google Drive refused it (Too many users)")

        monkeypatch.setitem(prepare.RECEIVERS, "gdrive", refuse)
        outcome = bench.prepare()
        assert outcome.code == 3
        assert outcome.notes == [
            f"gdrive:ABC could not be downloaded: Google Drive refused it (Too many users). You can get it with a "
            "browser from https://drive.google.com/file/d/ABC/view and put it to "
            f"{bench.place}/split_zhou_Food101.json "
            f"(SHA-256 {sha(split())})."
        ]
        monkeypatch.setitem(prepare.RECEIVERS, "gdrive", lambda address, part, quiet: part.write_bytes(split()))
        assert bench.prepare().code == 0

    def test_the_mirror_has_what_google_refuses(self, bench):
        """The split is in the mirror's zip, too; its failure then does not matter."""
        bench.offer("StanfordCars", CARS)
        bench.server.faults["split_zhou_StanfordCars.json"] = [404]
        assert bench.prepare().state == "ready"
        assert (bench.place / "split_zhou_StanfordCars.json").read_bytes() == split("car")

    def test_a_split_of_someone_else_is_named_and_left_alone(self, bench):
        bench.offer("Caltech101", CALTECH)
        bench.place.mkdir(parents=True)
        mine = bench.place / "split_zhou_Caltech101.json"
        mine.write_bytes(split("mine"))
        outcome = bench.prepare()
        assert (outcome.state, outcome.code) == ("incomplete", 4)
        assert outcome.notes == [
            f"{mine} is not the published file (SHA-256 {sha(split('mine'))} where {sha(split())} was expected); "
            f"move it away to have that downloaded."
        ]
        assert mine.read_bytes() == split("mine")
        assert (bench.place / "101_ObjectCategories").is_dir()

    @pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
    def test_a_split_with_another_line_end_is_the_same(self, bench, ending):
        bench.offer("Caltech101", CALTECH)
        bench.place.mkdir(parents=True)
        (bench.place / "split_zhou_Caltech101.json").write_bytes(b"\xef\xbb\xbf" + split() + ending)
        assert bench.prepare().code == 0
        assert bench.server.asked("split_zhou_Caltech101.json") == []

    def test_an_unsafe_archive(self, bench):
        bench.offer("EuroSAT", {"EuroSAT.zip": [pack_zip(pictures("2750/a/1.jpg") | {"../../evil.jpg": b"1"})]})
        outcome = bench.prepare()
        assert outcome.code == 4
        assert "would write to '../../evil.jpg'; nothing of it is used, do not trust it." in outcome.notes[0]
        assert tree(bench.folder) == ["data/eurosat/archives/EuroSAT.zip", "sources.yaml"]

    def test_an_archive_without_the_pictures(self, bench):
        bench.offer("EuroSAT", {"EuroSAT.zip": [pack_zip(pictures("EuroSATallBands/a/1.jpg"))]})
        outcome = bench.prepare()
        archive = bench.place / "archives/EuroSAT.zip"
        assert outcome.code == 4
        assert f"{archive} holds no 2750; it is not the archive that was expected." in outcome.notes[0]
        assert [path.name for path in bench.place.iterdir()] == ["archives"]

    def test_no_space(self, bench, monkeypatch):
        bench.offer("EuroSAT", EUROSAT)
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2_000_000, 1_500_000, 500_000))
        outcome = bench.prepare()
        need = f"{len(EUROSAT['EuroSAT.zip'][0]) / 1000:.1f} kB"
        assert (outcome.state, outcome.code) == ("no space", 1)
        assert outcome.notes == [
            f"{bench.place} has 500.0 kB free, but EuroSAT needs 1.0 MB ({need} to download, 1.0 MB to unpack); free "
            f"some space, or choose another --root."
        ]
        assert not bench.root.exists()

    def test_things_in_the_way(self, bench):
        bench.offer("StanfordCars", CARS)
        place = bench.place
        place.mkdir(parents=True)
        (place / "cars_train").write_bytes(b"a file")
        (place / "cars_test").symlink_to(place / "nowhere")
        (place / "split_zhou_StanfordCars.json").write_bytes(b"")
        outcome = bench.prepare()
        assert outcome.code == 4
        assert outcome.notes[:2] == [
            f"{place}/split_zhou_StanfordCars.json is an empty file; move it away.",
            f"{place}/cars_train should be a folder, but is none; move it away.",
        ]
        (place / "cars_train").unlink()
        assert bench.prepare().notes[1] == (
            f"{place}/cars_test is a link to {place}/nowhere, which does not exist; mend it or move it away."
        )
        (place / "cars_test").unlink()
        (place / "split_zhou_StanfordCars.json").unlink()
        (place / "split_zhou_StanfordCars.json").mkdir()
        assert bench.prepare().notes[0] == (
            f"{place}/split_zhou_StanfordCars.json should be a file, but is none; move it away."
        )

    def test_roots_that_are_none(self, bench):
        bench.offer("EuroSAT", EUROSAT)
        bench.root.write_bytes(b"")
        assert bench.prepare().notes == [
            f"{bench.root} should be a folder, but is none; move it away, or choose another --root."
        ]
        bench.root.unlink()
        bench.root.symlink_to(bench.folder / "nowhere")
        assert bench.prepare().notes == [
            f"{bench.root} is a link to {bench.folder}/nowhere, which does not exist; mend it."
        ]

    def test_a_root_behind_a_link_works(self, bench):
        bench.offer("EuroSAT", EUROSAT)
        elsewhere = bench.folder / "elsewhere"
        elsewhere.mkdir()
        bench.root.symlink_to(elsewhere)
        assert bench.prepare().code == 0
        assert tree(elsewhere / "eurosat/2750") == ["AnnualCrop/AnnualCrop_1.jpg", "SeaLake/SeaLake_1.jpg"]

    def test_a_root_that_cannot_be_written(self, bench, monkeypatch):
        bench.offer("EuroSAT", EUROSAT)

        def refuse(self, *args, **kwargs):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr("pathlib.Path.mkdir", refuse)
        outcome = bench.prepare()
        assert (outcome.state, outcome.code) == ("failed", 1)
        assert outcome.notes == [f"EuroSAT cannot be prepared ({bench.place}: Permission denied)."]

    def test_a_disk_that_is_full_after_all(self, bench, monkeypatch):
        bench.offer("Caltech101", CALTECH)

        def refuse(source, target):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shutil, "copyfile", refuse)
        outcome = bench.prepare()
        assert outcome.code == 1
        assert outcome.notes[0] == f"Cannot write {bench.place}/split_zhou_Caltech101.json (No space left on device)."

    def test_the_list_comes_before_the_pictures(self, bench):
        """Not everything is unpacked just because the list has failed to come."""
        packed = pack_zip(pictures("sun397/SUN397/a/1.jpg"))
        bench.offer("SUN397", {"split_zhou_SUN397.json": split(), "sun397.zip": packed})
        bench.server.faults["split_zhou_SUN397.json"] = [404]
        outcome = bench.prepare(listed_only=True)
        assert outcome.code == 3
        assert outcome.notes[1] == (
            f"--listed-only needs {bench.place}/split_zhou_SUN397.json, which has to come first."
        )
        assert tree(bench.place) == ["archives/sun397.zip"]

    def test_a_split_that_cannot_tell_what_is_listed(self, bench):
        bench.offer(
            "SUN397", {"split_zhou_SUN397.json": b"[]", "sun397.zip": pack_zip(pictures("sun397/SUN397/a/1.jpg"))}
        )
        outcome = bench.prepare(listed_only=True)
        assert outcome.code == 1
        assert "split_zhou_SUN397.json is no split file, which --listed-only needs (TypeError" in outcome.notes[0]


def test_progress_is_said_once_per_file(bench, caplog):
    caplog.set_level(logging.INFO)
    bench.offer("EuroSAT", EUROSAT)
    bench.prepare()
    archive = bench.place / "archives/EuroSAT.zip"
    assert caplog.messages == [
        f"Fetching EuroSAT.zip ({len(EUROSAT['EuroSAT.zip'][0]) / 1000:.1f} kB) ...",
        f"Unpacking {archive} ...",
    ]
