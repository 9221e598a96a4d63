"""Writes docs/options.md and docs/options_cn.md: the options of every command, from its parser.

    python docs/make_options.py

The English meanings are the --help texts; CHINESE has them in Chinese, with the default in words where the help has it so.
"""
import importlib
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MODULES = {"pretreat.py": "pretreat", "train.py": "recipe", "generator.py": "generator", "contrast.py": "contrast",
           "evaluate.py": "evaluate", "collect.py": "collect", "dataReader.py": "dataReader", "app.py": "app"}
DEFAULT = re.compile(r" ?[(（](?:default: |默认：)(.*)[)）]$")  # at the end of a text
ENGLISH_PAGE = """# Options

[中文](options_cn.md) · [README](../README.md)

`python docs/make_options.py` wrote this page from the commands' parsers; `--help` shows the same.
"""
CHINESE_PAGE = """# 选项

[English](options.md) · [README](../README_cn.md)

本页由 `python docs/make_options.py` 根据各命令的解析器生成；`--help` 显示同样的内容（英文）。
"""
TITLES = {"photos": "照片", "faces": "人脸", "packing": "打包", "networks": "网络", "data": "数据", "learning": "学习",
          "run": "运行", "experiments": "实验", "what to show": "显示什么",
          "faces and files": "人脸与文件"}
DEVICE = "auto：有 GPU 时使用 GPU"
CHINESE = {
    "pretreat.py": {
        "--input": "照片文件夹和 .zip 文件（默认：找到的 CelebA）",
        "--download": "先下载 CelebA 对齐后的图片，存为 img_align_celeba.zip；已有时不下载",
        "--url": "--download 的地址（默认：CelebA 在 Google Drive 上的地址）",
        "--attributes": "同时打包标签：取自能找到的 list_attr_celeba.txt，或同样格式的其他列表",
        "--limit": "只取前 N 张图片",
        "--size": "人脸的高和宽，像素",
        "--crop": "auto：长宽比与 CelebA 相同的图片用 celeba，其余用 center；celeba：CelebA 对齐图片中的脸；"
                  "center：居中的正方形；face：检测到的每一张脸",
        "--box": "配合 --crop center：正方形的边长，照片的像素",
        "--margin": "配合 --crop face：脸两侧的留白，以 64 像素的图为准（默认：10，与 CelebA 的图片相同）",
        "--out": "存放打包好的人脸的文件夹",
        "--holdout": "留出的图片的比例：不参与训练，用于评测",
        "--workers": "线程数（默认：CPU 数）",
    },
    "train.py": {
        "--arch": "一对已发表的网络，并采用其出处的 --noise、--loss、--label-smoothing、--d-steps 和 --g-steps",
        "--channels": "网络的宽度（默认：64；dcgan 在 128 像素时为 32，256 像素时为 16，这样内部各层一样宽）",
        "--z-dim": "生成一张脸所用的随机数的个数",
        "--up": "G 如何把尺寸加倍：转置卷积，或先放大再卷积；refine：同 resize，输出图片之前多一个卷积",
        "--vision-aided": "D 还根据预训练的人脸特征网络（pretrained/vision-aid.safetensors）提取的特征作判断"
                          "（用 dcgan 时的默认设置）",
        "--no-vision-aided": "D 只看图片",
        "--from": "从训练好的权重开始，例如 celeba64 或 Output/best.safetensors；网络结构由这份权重决定，"
                  "人脸尺寸更大时网络会扩展",
        "--freeze-d": "配合 --from：D 的前 N 层保持不变",
        "--freeze-g": "配合 --from：G 的卷积层除第一层外保持不变，只训练第一层和各批归一化层"
                      "（少于 5,000 张人脸、又没有未经训练的层时的默认设置）",
        "--no-freeze-g": "训练整个 G",
        "--data": "打包好的人脸",
        "--where": "只用有这些属性的人脸训练（pretreat.py --attributes）",
        "--conditional": "学习这些属性，供 generator.py --attr A=1 使用（pretreat.py --attributes）",
        "--batch": "每步的人脸数，所有设备合计",
        "--flip": "每张脸以 1/2 的概率左右翻转（默认设置）",
        "--no-flip": "不翻转",
        "--augment": "随机改变 D 看到的图片；auto：人脸少于 50,000 张时用 shift，否则不用",
        "--augment-p": "每张图片被这样改变的概率（默认：0.5；人脸少于 5,000 张时为 1）",
        "--preset": "classic：教程中的经典配方，即 --batch 128 --no-flip --augment off --ema 0 --up deconv "
                    "--no-vision-aided --lr 0.0002 --decay 0",
        "--lr": "Adam 的学习率，用于两个网络",
        "--lr-d": "判别器的学习率（默认：--lr，否则 0.0002）",
        "--lr-g": "生成器的学习率（默认：--lr，否则 0.0001；用其他 --arch 时为 0.0002；用 --from 时为其 0.5 倍，"
                  "用 --freeze-g 时为其 3 倍）",
        "--decay": "在训练最后的这一部分里，两个学习率都线性降到原来的 0.3 倍；0：不下降",
        "--ema": "滑动平均生成器的半衰期，以已见图像数计，至多为全部已见图像数的 0.05 倍（用 --from 时 0.3 倍）；0：不取平均",
        "--seed": "换一个种子，就是另一次训练",
        "--out": "训练结果的文件夹（默认：Output；使用自带的人脸时为 Output-builtin）",
        "--fresh": "在 --out 旁边带编号的新文件夹里开始新的训练",
        "--epochs": "轮数，从训练开始时算起（默认：8，或 1,500 步所需的轮数）",
        "--steps": "步数，从训练开始时算起，代替 --epochs",
        "--sample-every": "每隔多少步生成一次样本；初期在第 50, 100, 200 步也生成",
        "--save-every": "每隔多少步保存一次检查点",
        "--eval-every": "每隔多少步用留出的人脸评测一次，并据此保存最好的生成器；初期在第 500, 1000, 2000 步也评测",
        "--device": DEVICE,
        "--amp": "混合精度；auto：设备支持时用 bfloat16，否则在 GPU 上用 float16，在 CPU 上用 float32"
                 "（默认：CPU 上 auto，GPU 上 off）",
        "--visualdl": "同时写出 VisualDL（AI Studio 的可视化面板）的日志",
        "--noise": "z 的分布：N(0, 1)，或 [-1, 1)、[0, 1) 上的均匀分布",
        "--loss": "bce：交叉熵；softmax：同样的损失，D 有两个输出；minimax：同 bce，但 G 的损失会饱和",
        "--label-smoothing": "D 对真实人脸的目标概率为 1 - S",
        "--d-steps": "每步更新判别器的次数",
        "--g-steps": "每步更新生成器的次数",
        "--beta1": "Adam 的 β1",
        "--beta2": "Adam 的 β2",
    },
    "generator.py": {
        "--n": "生成多少张脸",
        "--seeds": "生成这些种子的脸，例如 0,4-6，代替 --n；其中的 me.npy 是 z 文件",
        "--z": "生成 z 文件中的脸，例如 --photo 写出的文件",
        "--photo": "对每张照片，找出与其中人脸最接近的生成人脸：NAME.npy 是它的 z，NAME.png 并排显示两者",
        "--seed": "--n 个连续种子中的第一个（默认：0）",
        "--attr": "生成有这些属性的脸，权重须用 --conditional 训练；其他属性随机",
        "--save-z": "同时把这些脸的 z 写成一个 .npy 文件，最多 1,000 张脸",
        "--weights": "train.py 保存的权重，或预训练权重的名称，例如 celeba64"
                     "（默认：Output 或其旁边某次训练的权重，否则为 celeba64）",
        "--out": "保存人脸的文件夹",
        "--export": "把生成器导出给其他程序，不生成人脸",
        "--batch": "同时生成多少张；越少，占用的内存越少",
        "--device": DEVICE,
    },
    "contrast.py": {
        "--walk": "从其中每张脸（例如 1,5,me.npy）到下一张的插值，最后回到第一张",
        "--sweep": "逐个改变 z 的这些分量，从 0 数起",
        "--direction": "让人脸在 z 中移动，使 CelebA 的某个属性更明显",
        "--sum": "把若干组人脸的平均相加减：种子、z 文件、属性，例如 \"1,5,9 - 3,me.npy + Male=1,Smiling=-1\"",
        "--timelapse": "把一个训练文件夹中的样本图做成动画",
        "--neighbours": "与每张生成人脸最接近的训练人脸",
        "--n": "多少张脸（默认：两边各 64；用 --neighbours 和 --direction 时为 8）",
        "--seed": "第一张生成人脸的种子（默认：0）",
        "--z": "改用 z 文件中的脸，例如 generator.py --photo 写出的文件",
        "--strengths": "配合 --direction：移动多远，以 z 的标准差计（默认：-2,0,2）",
        "--keep": "配合 --direction：不应随之改变的属性",
        "--data": "打包好的人脸",
        "--weights": "train.py 保存的权重，或预训练权重的名称（默认：与 generator.py 使用的相同）",
        "--out": "图片或动画文件（默认：在 Generate/ 中，按内容命名）",
        "--device": DEVICE,
    },
    "evaluate.py": {
        "--fake": "权重文件，或预训练权重的名称；图片文件夹或 .zip，或 .npy 文件，uint8 [N, S, S, 3]"
                  "（默认：generator.py 使用的生成器）",
        "--real": "打包好的人脸；与其中留出的人脸比较",
        "--n": "多少张脸（默认：2000，不足时与留出的同样多）",
        "--out": "保存结果的文件夹",
        "--seed": "所有随机数的种子，也用于生成人脸",
        "--fid": "同时计算 FID 和 KID，使用 pytorch-fid 的 Inception 网络",
        "--inception": "该网络的权重文件，这样就不必下载",
        "--device": DEVICE,
    },
    "collect.py": {
        "--keyword": "搜索关键词",
        "--urls": "网址列表，文本文件，一行一个",
        "--engine": "搜索引擎",
        "--num": "多少张照片，包括文件夹里已有的",
        "--out": "保存照片的文件夹",
        "--workers": "同时下载多少张",
    },
    "dataReader.py": {
        "--data": "打包好的人脸",
        "--out": "图片文件",
        "--n": "多少张脸",
    },
    "app.py": {
        "weights": "train.py 保存的权重，或预训练权重的名称（默认：所有训练的权重和预训练权重）",
        "--host": "监听的地址；0.0.0.0：本机的所有地址",
        "--port": "监听的端口",
        "--root-path": "经由代理时：代理提供本页的路径，或完整网址",
        "--device": DEVICE,
    },
}


def groups_of(parser):
    """The options of a parser, --help left out: title of the group, "" for argparse's own → actions."""
    groups = {}
    for group in parser._action_groups:  # argparse has no public name for these
        title = "" if group.title in ("positional arguments", "options") else group.title
        groups.setdefault(title, []).extend(action for action in group._group_actions if action.dest != "help")
    return {title: actions for title, actions in groups.items() if actions}


def name_of(action):
    """An option's name, with the values it takes."""
    name = action.option_strings[0] if action.option_strings else ""
    usual = action.dest.upper() if action.type is None else "N"
    value = "" if action.nargs == 0 else " / ".join(action.choices or [action.metavar or usual])
    value = {"?": f"[{value}]", "+": f"{value} …", "*": f"[{value} …]"}.get(action.nargs, value)
    return "`" + f"{name} {value}".strip() + "`"


def row(action, text, on):
    """An option as a line of a table; `text` is its meaning, `on` the word for a flag that is on."""
    said = DEFAULT.search(text)
    if said:
        default = said[1]
    elif action.nargs == 0:
        default = on if action.default is action.const is True else ""
    else:
        default = "" if action.default in (None, "") else f"`{action.default}`"
    return f"| {name_of(action)} | {default} | {DEFAULT.sub('', text)} |".replace("|  |", "| |")


def look_up(key, texts, name):
    """The Chinese text of `key` in the dict `texts` of this `name`. Ends the program where there is none."""
    return texts.get(key) or sys.exit(f"docs/make_options.py: {name} has no text for {key}")


def chinese_of(command, action):
    """An option's key in CHINESE, and its Chinese meaning. Ends the program where there is none, or none that fits."""
    key = (action.option_strings or [action.dest])[0]
    text = look_up(key, CHINESE[command], f"CHINESE[{command!r}]")
    if bool(DEFAULT.search(text)) != bool(DEFAULT.search(action.help)):
        sys.exit(f"docs/make_options.py: {command} {key}: one of --help and CHINESE has a default in words, the other has none")
    return key, text


def pages():
    """Both pages: file name → text."""
    english, chinese = [ENGLISH_PAGE], [CHINESE_PAGE]
    for command, module in MODULES.items():
        used = set()
        for page in (english, chinese):
            page.append(f"\n## `{command}`\n")
        for title, actions in groups_of(importlib.import_module(module).build_parser()).items():
            if title:
                english.append(f"\n### {title.capitalize()}\n")
                chinese.append(f"\n### {look_up(title, TITLES, 'TITLES')}\n")
            english.append("\n| option | default | meaning |\n| --- | --- | --- |\n")
            chinese.append("\n| 选项 | 默认值 | 含义 |\n| --- | --- | --- |\n")
            for action in actions:
                key, text = chinese_of(command, action)
                used.add(key)
                english.append(row(action, action.help, "on") + "\n")
                chinese.append(row(action, text, "开") + "\n")
        if unused := CHINESE[command].keys() - used:
            sys.exit(f"docs/make_options.py: CHINESE has texts for options that {command} lacks: {', '.join(sorted(unused))}")
    return {"options.md": "".join(english), "options_cn.md": "".join(chinese)}


def main():
    """The command: writes the pages."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER.parent))
    main()
