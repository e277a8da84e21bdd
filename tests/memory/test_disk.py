"""The disk tier: damage never passes for a page, a full disk is one line, and no file is left."""

import errno
import fcntl
import os
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from memory_tiers.native import UnavailableError
from memory_tiers.tiers import disk as disk_module
from memory_tiers.tiers.base import DamagedPagesError
from memory_tiers.tiers.disk_file import OutOfDiskError
from tests.memory.tiers import (
    DTYPES,
    IMPLEMENTATIONS,
    NUM_FRAMES,
    geometry,
    make_disk,
    pages,
    same,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tier")


@contextmanager
def second_descriptor(disk):
    """The same file, buffered: whoever damages it cares for no alignment."""
    fd = os.open(f"/proc/self/fd/{disk._file.fd}", os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


def flip_a_byte(disk, frame: int, at: int) -> None:
    with second_descriptor(disk) as fd:
        offset = frame * disk.frame_bytes + at
        os.pwrite(fd, bytes([os.pread(fd, 1, offset)[0] ^ 4]), offset)


@contextmanager
def files_end_at(num_bytes: int):
    """No file of this process grows or is written beyond: a disk that is full there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("page_tokens", [1, 3, 8])
@pytest.mark.parametrize("head_dim", [1, 5, 64])
def test_both_implementations_know_the_same_checksums(folder, dtype, page_tokens, head_dim):
    shape = geometry(dtype, page_tokens, head_dim)
    compiled, python = (make_disk(folder, shape, python=python) for python in (False, True))
    content_NPSD = pages(5, shape)
    for disk in (compiled, python):
        disk.write(torch.tensor([9, 2, 3, 0, 23]), content_NPSD)
    assert torch.equal(compiled._requests.checksum_F, python._requests.checksum_F)
    assert len(compiled._requests.checksum_F.unique()) == 6


@pytest.mark.parametrize("python", [False, True], ids=IMPLEMENTATIONS)
@pytest.mark.parametrize("direct", ["auto", False])
def test_a_flipped_byte_is_found_and_its_neighbours_are_kept(folder, python, direct):
    disk, shape = make_disk(folder, python=python, direct=direct), geometry()
    frames_N, content_NPSD = torch.tensor([4, 9, 5, 6, 20]), pages(5, shape)
    disk.write(frames_N, content_NPSD)
    flip_a_byte(disk, 5, at=4095)
    flip_a_byte(disk, 20, at=0)
    got_NPSD = torch.zeros_like(content_NPSD)
    with pytest.raises(
        DamagedPagesError, match=r"^tier\.disk\.path=[^\n]*: 2 of 5 pages"
    ) as raised:
        disk.read_into(frames_N, got_NPSD, torch.arange(5))
    assert sorted(raised.value.frames_N.tolist()) == [5, 20]
    assert same(got_NPSD[[0, 1, 3]], content_NPSD[[0, 1, 3]])
    disk.write(torch.tensor([20, 5]), content_NPSD[:2])
    assert same(disk.read(torch.tensor([5, 20])), content_NPSD[[1, 0]])


@pytest.mark.parametrize("python", [False, True], ids=IMPLEMENTATIONS)
def test_a_file_that_was_cut_short_loses_only_what_was_cut(folder, python):
    disk = make_disk(folder, python=python)
    frames_N, content_NPSD = torch.arange(10), pages(10, geometry())
    disk.write(frames_N, content_NPSD)
    os.ftruncate(disk._file.fd, 7 * disk.frame_bytes + 100)
    got_NPSD = torch.zeros_like(content_NPSD)
    with pytest.raises(DamagedPagesError, match="3 of 10") as raised:
        disk.read_into(frames_N, got_NPSD, frames_N)
    assert raised.value.frames_N.tolist() == [7, 8, 9]
    assert same(got_NPSD[:7], content_NPSD[:7])


@pytest.mark.parametrize("python", [False, True], ids=IMPLEMENTATIONS)
def test_what_the_system_refuses_to_read_is_damaged_for_that_reason(folder, python):
    disk = make_disk(folder, python=python)
    disk.write(torch.arange(3), pages(3, geometry()))
    reader, writer = os.pipe()
    os.dup2(reader, disk._file.fd)
    with pytest.raises(DamagedPagesError, match=r"3 of 3 pages .* \(Illegal seek\)"):
        disk.read(torch.arange(3))
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("python", [False, True], ids=IMPLEMENTATIONS)
@pytest.mark.parametrize("direct", ["auto", False])
def test_a_disk_that_fills_up_loses_only_what_was_being_written(folder, python, direct):
    disk, shape = make_disk(folder, python=python, direct=direct), geometry()
    old_NPSD, new_NPSD = pages(8, shape, 1), pages(8, shape, 2)
    disk.write(torch.arange(8), old_NPSD)
    frames_N = torch.arange(4, 12)
    with files_end_at(6 * disk.frame_bytes), pytest.raises(OutOfDiskError) as raised:
        disk.write(frames_N, new_NPSD)
    assert "6 of 8 pages cannot be written" in str(raised.value)
    got_NPSD = torch.zeros_like(pages(12, shape))
    with pytest.raises(DamagedPagesError) as damaged:
        disk.read_into(torch.arange(12), got_NPSD, torch.arange(12))
    assert damaged.value.frames_N.tolist() == [6, 7, 8, 9, 10, 11]
    assert same(got_NPSD[:6], torch.cat((old_NPSD[:4], new_NPSD[:2])))
    disk.write(frames_N, new_NPSD)
    assert same(disk.read(frames_N), new_NPSD)


@pytest.mark.parametrize("python", [False, True], ids=IMPLEMENTATIONS)
def test_half_a_page_is_no_page(folder, python):
    disk, content_NPSD = make_disk(folder, python=python, direct=False), pages(1, geometry())
    with files_end_at(100), pytest.raises(OutOfDiskError, match="No space left"):
        disk.write(torch.tensor([0]), content_NPSD)
    with pytest.raises(DamagedPagesError):
        disk.read(torch.tensor([0]))


def test_a_write_that_fails_for_another_reason_names_it(folder):
    disk = make_disk(folder)
    reader, writer = os.pipe()
    os.dup2(writer, disk._file.fd)
    with pytest.raises(OSError, match=r"^tier\.disk\.path=.* 2 of 2 pages .*: Illegal seek$"):
        disk.write(torch.arange(2), pages(2, geometry()))
    os.close(reader)
    os.close(writer)


def test_a_full_disk_is_refused_before_anything_is_written(folder):
    message = r"^tier\.disk\.size asks for 98304 bytes in '[^\n]*', \d+ are free[^\n]*disk\.path$"
    with files_end_at(NUM_FRAMES * 4096 - 1), pytest.raises(OutOfDiskError, match=message):
        make_disk(folder)
    assert issubclass(OutOfDiskError, MemoryError), "the record of such a run says: out of memory"
    assert not list(folder.iterdir())


def test_the_file_has_its_blocks_from_the_start(folder):
    disk = make_disk(folder)
    facts = os.fstat(disk._file.fd)
    assert facts.st_size == NUM_FRAMES * disk.frame_bytes <= 512 * facts.st_blocks


def test_no_file_outlives_its_tier(tmp_path):
    disk = make_disk(tmp_path)
    fd = disk._file.fd
    assert not list(tmp_path.iterdir())
    disk.close()
    disk.close()
    with pytest.raises(AssertionError, match="disk is closed"):
        disk.read(torch.arange(1))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    forgotten = make_disk(tmp_path)._file.fd
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(forgotten)


def test_no_file_outlives_a_process_that_is_killed(tmp_path):
    child = os.fork()
    if child == 0:
        try:
            make_disk(tmp_path).write(torch.arange(4), pages(4, geometry()))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not list(tmp_path.iterdir())


def test_a_forked_process_does_not_wait_for_threads_that_it_has_not_got(tmp_path):
    disk = make_disk(tmp_path)
    child = os.fork()
    if child == 0:
        # What the garbage collector may do there at any time.
        disk._requests.close()
        os._exit(0)
    deadline_s = time.monotonic() + 30
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline_s:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    disk.close()


def test_memory_that_direct_requests_cannot_use_is_staged(folder):
    disk, shape = make_disk(folder), geometry()
    content_NPSD = pages(6, shape)
    memory = torch.zeros(NUM_FRAMES * shape.page_bytes + 4096, dtype=torch.uint8)
    start = (64 - memory.data_ptr()) % 4096
    odd_FPSD = memory[start : start + NUM_FRAMES * shape.page_bytes].view(torch.float32)
    odd_FPSD = odd_FPSD.view(NUM_FRAMES, *content_NPSD.shape[1:])
    frames_N, places_N = torch.tensor([3, 1, 2, 9, 0, 5]), torch.tensor([8, 0, 1, 2, 23, 7])
    odd_FPSD[places_N] = content_NPSD
    disk.write_from(frames_N, odd_FPSD, places_N)
    odd_FPSD.zero_()
    disk.read_into(frames_N, odd_FPSD, places_N)
    assert same(odd_FPSD[places_N], content_NPSD)
    assert same(disk.read(frames_N), content_NPSD)


def test_threads_of_the_caller_may_read_at_one_time(folder):
    disk, shape = make_disk(folder, in_flight=8, frames=64), geometry()
    content_NPSD = pages(64, shape)
    disk.write(torch.arange(64), content_NPSD)

    def read(seed):
        frames_N = torch.randperm(64, generator=torch.Generator().manual_seed(seed))[:20]
        return same(disk.read(frames_N), content_NPSD[frames_N])

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(200)))


def test_direct_is_what_is_really_used(folder, monkeypatch):
    assert not make_disk(folder, direct=False).direct
    odd = geometry(page_tokens=3)
    assert not make_disk(folder, odd).direct
    with pytest.raises(ValueError, match=r"^tier\.disk\.direct=true: a page of 768 bytes [^\n]*$"):
        make_disk(folder, odd, direct=True)
    disk = make_disk(folder)
    flags = fcntl.fcntl(disk._file.fd, fcntl.F_GETFL)
    assert disk.direct == bool(flags & os.O_DIRECT)

    def refused(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("memory_tiers.tiers.disk_file.os.preadv", refused)
    buffered = make_disk(folder)
    assert not buffered.direct
    assert not fcntl.fcntl(buffered._file.fd, fcntl.F_GETFL) & os.O_DIRECT
    with pytest.raises(ValueError, match=r"direct=true: the file system of .* refuses it"):
        make_disk(folder, direct=True)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"direct": "maybe"}, r"^tier\.disk\.direct='maybe': choose auto, true or false$"),
        ({"in_flight": 0}, r"^tier\.disk\.in_flight=0: give 1 to 256 requests$"),
        ({"in_flight": True}, r"^tier\.disk\.in_flight=True: give 1 to 256 requests$"),
        ({"in_flight": 2.5}, r"^tier\.disk\.in_flight=2\.5: give 1 to 256 requests$"),
    ],
)
def test_a_setting_out_of_range_is_refused(folder, choice, message):
    with pytest.raises(ValueError, match=message):
        make_disk(folder, **choice)


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match=r"^tier\.disk\.path='[^\n]*': [^\n]* can be written$"):
        make_disk(file)


def test_without_a_compiler_python_serves(folder, monkeypatch):
    def no_compiler(*_):
        raise UnavailableError("there is no C++ compiler")

    monkeypatch.setattr(disk_module, "CompiledRequests", no_compiler)
    assert make_disk(folder).implementation == "python"
