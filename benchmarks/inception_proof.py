"""Shows that scoring/fid.py computes what pytorch-fid and torch-fidelity compute, on random weights, pictures and features.

    python -m benchmarks.inception_proof --torch /path/to/python      # about two minutes on two cores

--torch names a Python that can import pytorch_fid 0.3.0 (with torchvision), torch_fidelity 0.4.0 and scipy below 1.18
(pytorch-fid does not work with newer ones): python -m venv torch && torch/bin/pip install pytorch-fid torch-fidelity
"scipy<1.18". This file is also what runs there. It draws the weights, and writes them in both of PyTorch's formats.
"""
from support.cli import Parser, UserError, run_command

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TOLERANCE = 1e-4
FORMATS = ("zip", "legacy")  # of torch.save
PAIRS = ("many", "few")  # of sets of features: more faces than features, and fewer, which makes the covariances singular


def random_weights(state):
    """Fills a state dict so that the features are of the order of 1, as the trained network's are."""
    import torch

    torch.manual_seed(0)
    for name, tensor in state.items():
        if name.endswith(("conv.weight", "fc.weight")):
            tensor.normal_(0, (1.8 / tensor[0].numel()) ** 0.5)
        elif name.endswith(("bn.weight", "running_var")):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.1)
    return state


def theirs(folder):
    """What the other side computes, from folder/given.npz to folder/theirs.npz; writes folder/zip.pth and folder/legacy.pth."""
    import torch
    import torchvision
    from pytorch_fid import fid_score, inception
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    given = np.load(folder / "given.npz")
    network = torchvision.models.inception_v3(weights=None, init_weights=False, num_classes=1008, aux_logits=False)
    weights = random_weights(network.state_dict())
    for form in FORMATS:
        torch.save(weights, folder / f"{form}.pth", _use_new_zipfile_serialization=form == "zip")
    inception.load_state_dict_from_url = lambda *_, **__: weights  # in place of the download
    network = inception.InceptionV3().eval()
    pictures = torch.from_numpy(given["faces"]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        results = {"features": network(pictures)[0][:, :, 0, 0].numpy()}
    for pair in PAIRS:
        moments = [moment for x in given[pair].astype(float) for moment in (x.mean(axis=0), np.cov(x, rowvar=False))]
        results[f"FID, {pair}"] = fid_score.calculate_frechet_distance(*moments)
    a, b = torch.from_numpy(given["few"].astype(float))
    # All of them in each subset, for no two programs draw the same subsets.
    results["KID"] = kid_features_to_metric(a, b, kid_subset_size=len(a), verbose=False)[KEY_METRIC_KID_MEAN]
    np.savez(folder / "theirs.npz", **results)


def ours(folder):
    """Computes the same and prints both; the exit status is 1 where they differ."""
    from scoring import fid
    from support.device import tune_cpu

    tune_cpu()
    given, expected = np.load(folder / "given.npz"), np.load(folder / "theirs.npz")
    agree = True

    def compare(what, own, other):
        nonlocal agree
        difference, scale = np.abs(own - other).max(), np.abs(other).max()
        agree &= bool(difference < TOLERANCE * min(scale, 1))
        print(f"{what}: {np.mean(own):.9g}, theirs {np.mean(other):.9g}; "
              f"difference at most {difference:.1e}, relative {difference / scale:.1e}")

    for form in FORMATS:
        path = folder / f"{form}.pth"
        fid.SHA256 = fid.hashlib.sha256(path.read_bytes()).hexdigest()  # in place of that of the trained weights
        own, other = fid.features(fid.load_inception(path), given["faces"]), expected["features"]
        compare(f"mean feature, {form} format", own, other)
    print(f"  (the features' standard deviation: {other.std():.2g}, among pictures {other.std(axis=0).mean():.2g})")
    for pair in PAIRS:
        compare(f"FID, {pair} faces", fid.frechet_distance(*given[pair]), expected[f"FID, {pair}"])
    compare("KID", fid.kernel_distance(*given["few"], seed=0)[0], expected["KID"])
    return agree


def main():
    """The command: draws what both sides are given, lets them compute, and compares."""
    parser = Parser(__doc__, "--torch PYTHON")
    parser.add_argument("--torch", required=True, metavar="PYTHON", help="a Python that can import pytorch_fid, torch_fidelity")
    options = parser.parse_args()
    random = np.random.default_rng(0)

    def two_sets(count):
        """Correlated, positive features, the second set's a little larger: float32 [2, count, 2048]."""
        mixing = random.standard_normal((256, 2048)) / 32
        noise = random.standard_normal((2, count, 2048)) / 4
        return np.abs(random.standard_normal((2, count, 256)) @ mixing + noise + [[[0]], [[0.3]]]).astype(np.float32)

    with tempfile.TemporaryDirectory() as folder:
        faces = [random.integers(0, 256, (2, 64 // side, 64 // side, 3), np.uint8).repeat(side, 1).repeat(side, 2)
                 for side in (1, 4, 16, 64)]  # fine to coarse mosaics
        np.savez(f"{folder}/given.npz", faces=np.concatenate(faces), many=two_sets(3000), few=two_sets(500))
        if subprocess.run([options.torch, "-m", "benchmarks.inception_proof", "theirs", folder], check=False).returncode:
            raise UserError(f"{options.torch} failed, see above; --help says what it needs", status=1)
        if not ours(Path(folder)):
            raise UserError(f"more than {TOLERANCE} of difference", status=1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["theirs"]:
        theirs(Path(sys.argv[2]))
    else:
        run_command(main)
