import pytest
import torch
from torch import nn

from kdbench.errors import RunError
from kdbench.method import Batch, ImageMemory, Share, last_of_each
from kdbench.streams import Streams


def batch(index, share=None):
    index = torch.tensor(index)
    return Batch(torch.zeros(len(index), 1), torch.zeros_like(index), index, 0, Streams(0), share or Share())


class Second(Share):
    """The second of two ranks: the first one has image 3 and the values before."""

    def gather(self, x):
        others = torch.full_like(x[:1], 3) if x.dim() == 1 else torch.full_like(x[:1], -1.0)
        return torch.cat([others, x])


def test_the_last_place_of_each_value():
    assert last_of_each(torch.tensor([4, 2, 4, 7, 2, 4])).tolist() == [5, 4, 5, 3, 4, 5]


def test_what_was_written_is_read_and_the_rest_is_zero():
    memory, values = ImageMemory(6, 3), torch.arange(6.0).view(2, 3)
    memory.write(batch([4, 1]), values)
    assert torch.equal(memory.read(batch([1, 4, 0])), torch.stack([values[1], values[0], torch.zeros(3)]))
    memory.write(batch([4]), -values[:1])
    assert torch.equal(memory.read(batch([4, 1])), torch.stack([-values[0], values[1]]))


def test_an_image_met_twice_in_a_batch_keeps_its_last_row():
    memory, values = ImageMemory(6, 1), torch.arange(5.0).view(5, 1)
    memory.write(batch([2, 3, 2, 3, 2]), values)
    assert memory.read(batch([2, 3])).flatten().tolist() == [4.0, 3.0]


def test_the_rows_of_all_ranks_are_written():
    memory = ImageMemory(6, 2)
    memory.write(batch([5], Second()), torch.tensor([[1.0, 2.0]]))
    assert memory.read(batch([3, 5])).tolist() == [[-1.0, -1.0], [1.0, 2.0]]


def test_nothing_of_the_graph_is_kept():
    memory, values = ImageMemory(6, 2), torch.ones(1, 2, requires_grad=True)
    memory.write(batch([1]), values)
    assert not memory.rows.requires_grad
    assert not memory.read(batch([1])).requires_grad
    values.data.zero_()
    assert memory.read(batch([1])).tolist() == [[1.0, 1.0]], "a copy"


@pytest.mark.parametrize("place", ["device", "host"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_half_precision_is_read_as_float32(dtype, place):
    memory = ImageMemory(6, 1, dtype, place)
    memory.write(batch([0]), torch.tensor([[1 / 3]], dtype=torch.float64))
    read = memory.read(batch([0]))
    assert read.dtype == torch.float32
    assert read.item() == torch.tensor(1 / 3, dtype=torch.float64).to(dtype).float().item()
    memory.write(batch([1]), torch.tensor([[0.5]], dtype=torch.bfloat16))
    assert memory.read(batch([1])).item() == 0.5


def test_a_memory_on_the_host_stays_there_when_its_method_moves_or_is_cast():
    method = nn.ModuleDict(
        {"host": ImageMemory(6, 2, place="host"), "device": ImageMemory(6, 2), "fc": nn.Linear(2, 2)}
    )
    method.to("meta", torch.float64)
    assert (method["host"].rows.device.type, method["host"].rows.dtype) == ("cpu", torch.float32)
    assert (method["device"].rows.device.type, method["device"].rows.dtype) == ("meta", torch.float64)
    assert method["fc"].weight.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("place", ["device", "host"])
def test_rows_are_read_on_the_device_of_the_batch(place):
    memory = ImageMemory(6, 2, torch.float16, place).cuda()
    assert memory.rows.is_cuda == (place == "device")
    one = Batch(torch.zeros(1, 1), torch.zeros(1), torch.tensor([4], device="cuda"), 0, Streams(0))
    memory.write(one, torch.tensor([[1.0, 2.0]], device="cuda"))
    read = memory.read(one)
    assert read.is_cuda
    assert read.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("place", ["device", "host"])
def test_rows_are_part_of_the_state(place):
    memory, other = (ImageMemory(6, 2, torch.float16, place) for _ in range(2))
    memory.write(batch([3]), torch.ones(1, 2))
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.rows, memory.rows)
    assert other.rows.dtype == torch.float16


def test_a_memory_over_its_limit_is_refused_before_it_is_made():
    images, classes = 1_281_167, 1000
    message = (
        r"^a memory of 1281167 × 1000 numbers \(torch.float32\) takes 4.8 GiB, more than its limit of 4 GiB; "
        "take a smaller type or a higher limit$"
    )
    with pytest.raises(RunError, match=message):
        ImageMemory(images, classes, limit_gib=4)
    with pytest.raises(RunError, match=r"takes 9\.5 GiB, more than its limit of 8 GiB"):
        ImageMemory(2 * images, classes)
    with torch.device("meta"):  # takes no memory
        assert ImageMemory(images, classes).rows.shape == (images, classes)
