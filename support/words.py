"""The texts of the page of app.py, in its languages."""

LANGUAGES = ("en", "zh-CN", "zh-TW")
WORDS = {  # the texts of the page, in these languages
    "title": ("# Faces from noise\nNone of these people exists. The same seed and generator always give the same face.",
              "# 从噪声生成人脸\n这些人都不存在。一个种子对应一张脸：同一个生成器、同一个种子，得到的总是同一张脸。",
              "# 從雜訊生成人臉\n這些人都不存在。一個種子對應一張臉：同一個生成器、同一個種子，得到的總是同一張臉。"),
    "weights": ("Generator · resolution · images seen in training",
                "生成器 · 分辨率 · 训练时看过的图片数", "生成器 · 解析度 · 訓練時看過的圖片數"),
    "truncation": ("Truncation: the smaller, the softer and more alike the faces, with fewer artefacts",
                   "截断系数：越小，人脸越柔和、越相似，瑕疵也越少", "截斷係數：越小，人臉越柔和、越相似，瑕疵也越少"),
    "attributes": ("Attributes: + with, – without, ? left to chance", "属性：+ 有，– 无，? 随机", "屬性：+ 有，– 無，? 隨機"),
    "faces": ("Faces", "人脸", "人臉"), "walk": ("Interpolation", "插值", "內插"),
    "vary": ("Variations", "变体", "變體"), "compare": ("Comparison", "对比", "對比"),
    "first": ("First seed", "起始种子", "起始種子"), "count": ("How many", "人脸数量", "人臉數量"),
    "again": ("Other faces", "换一批", "換一批"), "save": ("Download as one picture", "下载为一张图片", "下載為一張圖片"),
    "picked": ("Click on two faces, then see them in *Interpolation*; the last one clicked is also the one in *Variations*.",
               "依次点击两张脸，再到“插值”里看两者之间的过渡；最后点击的那张也是“变体”的原图。",
               "依序點選兩張臉，再到「內插」裡看兩者之間的過渡；最後點選的那張也是「變體」的原圖。"),
    "start": ("From seed", "起点种子", "起點種子"), "end": ("To seed", "终点种子", "終點種子"),
    "which": ("Seed", "种子", "種子"), "strength": ("Amount of change", "变化幅度", "變化幅度"),
    "face": ("Your face", "你的脸", "你的臉"),
    "private": ("The photo is sent to this server to be looked at once; it is neither stored nor shown to anyone else. The face "
                "that comes back is drawn by the generator: the nearest to yours that it can draw.",
                "照片只发送到本服务器处理一次，不会保存，也不会给别人看。得到的脸是生成器画的：它能画出的最像你的那张。",
                "照片只傳送到本伺服器處理一次，不會儲存，也不會給別人看。得到的臉是生成器畫的：它能畫出的最像你的那張。"),
    "upload": ("Choose a photo", "选择照片", "選擇照片"),
    "mine": ("Without a photo: the face of seed", "没有照片时：种子", "沒有照片時：種子"),
    "to": ("On the way to seed", "过渡到种子", "過渡到種子"),
    "Smiling": ("Smile", "微笑", "微笑"), "Male": ("Male", "男性", "男性"), "Young": ("Young", "年轻", "年輕"),
    "Blond_Hair": ("Blond hair", "金发", "金髮"), "Eyeglasses": ("Glasses", "眼镜", "眼鏡"),
    "more": ("Other variations", "换一组变体", "換一組變體"), "other": ("Other generator", "另一个生成器", "另一個生成器"),
}
