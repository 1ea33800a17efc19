"""Log a multimodal training of any making, so that `mmtool diagnose` can judge it.

    import mmtool.log

    with mmtool.log.start("runs/mine", modalities=["audio", "video"], classes=6) as run:
        for epoch in range(epochs):
            for i, (audio, video, y) in enumerate(loader, start=epoch * len(loader)):
                with run.step(i, n=len(y), epoch=epoch):
                    with run.phase("forward"):
                        features = {"audio": model.a(audio), "video": model.v(video)}
                        loss = cross_entropy(model.fuse(features), y)
                    with run.phase("backward"):
                        loss.backward()
                    ...
                    run.record(loss=loss)
                    for name, z in features.items():
                        run.modality(name, features=z, labels=y)
            run.epoch(epoch, split="val", features=val_features, labels=val_y, fuse=model.fuse)

The directory is written as by `mmtool train`: one line per event, flushed, so that a kill loses
nothing. `modality` trains a linear probe on detached features, which neither sends gradients into
the model nor draws from its random numbers. `epoch` permutes the cached features of a split and
asks `fuse` again: how many answers flip, what accuracy is lost, what each modality does alone.

Where the loop cannot be changed much, `wrap` takes the features from modules by their names:

    watched = mmtool.log.wrap(model, encoders={"audio": "enc.a", "video": "enc.v"}, fusion="head")

Nothing here imports torch until features are given.
"""

from mmtool.log.opening import start
from mmtool.log.run import RunLog
from mmtool.log.watched import Watched, wrap

__all__ = ["RunLog", "Watched", "start", "wrap"]
