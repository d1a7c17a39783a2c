"""Every word of the worklist's page, in English and Korean; ``{name}`` stands for a value."""

TEXTS: dict[str, tuple[str, str]] = {
    "title": ("Worklist", "워크리스트"),
    "research": ("Research only.", "연구용입니다."),
    "no_device": (
        "Not a medical device: no decision about a patient may rest on this page.",
        "의료기기가 아닙니다. 이 페이지를 근거로 환자에 관한 결정을 내리지 마십시오.",
    ),
    "language": ("Language", "언어"),
    "skip": ("Skip to the list", "목록으로 바로 가기"),
    # what the page was made with
    "made_with": ("Made with", "생성 정보"),
    "classifier": ("Classifier", "분류기"),
    "detector": ("Detector", "탐지기"),
    "no_detector": ("none: boxes were not looked for", "없음: 상자는 찾지 않았습니다"),
    "operating_point": ("operating point {value}", "운용점 {value}"),
    "boxes_from": ("boxes from score {value}", "점수 {value}부터 상자 표시"),
    "weights": ("SHA-256 {value}", "SHA-256 {value}"),
    "code": ("Code", "코드"),
    "commit": ("commit {value}", "커밋 {value}"),
    "no_commit": ("not a git checkout", "git 저장소가 아님"),
    "written": ("Written", "작성 시각"),
    "watched": (
        "kept up to date by --watch: reload for what has come since",
        "--watch가 계속 갱신합니다. 새로 고치면 그 뒤에 들어온 검사가 보입니다",
    ),
    "reload": ("Reload every 30 s", "30초마다 새로 고침"),
    # finding one's way
    "filter": ("Filter", "필터"),
    "search": ("Find by file, view or date", "파일·촬영 방향·날짜로 찾기"),
    "all": ("All", "전체"),
    "above": ("PNEUMONIA", "폐렴 PNEUMONIA"),
    "borderline": ("Borderline", "경계"),
    "unlike": ("Unlike training", "학습 영상과 다름"),
    "noted": ("See note", "참고 사항"),
    "boxed": ("With boxes", "상자 있음"),
    "below": ("NORMAL", "정상 NORMAL"),
    "shown": ("{shown} of {all} exams shown", "검사 {all}건 중 {shown}건 표시"),
    "none_shown": ("No exam fits the filter.", "필터에 맞는 검사가 없습니다."),
    "no_exams": ("No exam has been answered yet.", "아직 판정한 검사가 없습니다."),
    "sort": ("Sort by", "정렬"),
    # columns
    "exams": ("Exams, most urgent first", "검사 목록, 긴급도 순"),
    "rank": ("Urgency", "긴급도"),
    "film": ("Film", "영상"),
    "probability": ("Probability of PNEUMONIA", "폐렴(PNEUMONIA) 확률"),
    "marks": ("Marks", "표시"),
    "boxes": ("Boxes", "상자"),
    "acquired": ("Acquired", "촬영 일시"),
    "view": ("View", "촬영 방향"),
    "file": ("File", "파일"),
    "patient": ("Patient", "환자"),
    "note": ("Note", "참고 사항"),
    # cells
    "PNEUMONIA": ("PNEUMONIA", "폐렴 PNEUMONIA"),
    "NORMAL": ("NORMAL", "정상 NORMAL"),
    "above_point": ("at or above {value}", "{value} 이상"),
    "below_point": ("below {value}", "{value} 미만"),
    "highest": ("highest score {value}", "최고 점수 {value}"),
    "box_count": ("{count}", "{count}개"),
    "study_date": ("study date", "검사 날짜"),
    "unknown": ("not stated", "정보 없음"),
    "no_mark": ("none", "없음"),
    "overlay": ("Show Grad-CAM and boxes on this film", "이 영상에 Grad-CAM과 상자 겹쳐 보기"),
    "enlarge": ("Large view", "크게 보기"),
    "no_picture": ("The picture is missing", "영상 파일이 없습니다"),
    # large view
    "viewer": ("Large view", "크게 보기"),
    "previous": ("Previous exam", "이전 검사"),
    "next": ("Next exam", "다음 검사"),
    "close": ("Close the large view", "크게 보기 닫기"),
    "toggle_boxes": ("Boxes", "상자"),
    "toggle_heat": ("Grad-CAM", "Grad-CAM"),
    "toggle_invert": ("Invert", "흑백 반전"),
    "size": ("Size", "크기"),
    "pixels": ("{width} x {height} pixels", "{width} x {height} 픽셀"),
    "instance": ("SOP Instance UID", "SOP Instance UID"),
    "heat_scale": (
        "Grad-CAM: what speaks for PNEUMONIA, from none (clear) to most in this image (yellow)",
        "Grad-CAM: 폐렴(PNEUMONIA)의 근거. 없음(투명)에서 이 영상에서 가장 강함(노랑)까지",
    ),
    # what could not be answered
    "unanswered": ("Not answered", "판정하지 못한 파일"),
    "unanswered_note": (
        "These files have no answer. They may hold the most urgent exam of all: look at them yourself.",
        "판정 결과가 없는 파일입니다. 가장 긴급한 검사일 수도 있으니 직접 확인하십시오.",
    ),
    "reason": ("Reason", "이유"),
    # how to read the page
    "legend": ("How to read this list", "목록 읽는 법"),
    "legend_order": (
        "Order: the calibrated probability of PNEUMONIA, highest first.",
        "순서: 보정된 폐렴(PNEUMONIA) 확률이 높은 것부터.",
    ),
    "legend_order_boxes": (
        "Where it is equal, the highest score of a box.",
        "확률이 같으면 상자의 최고 점수가 높은 것부터.",
    ),
    "legend_point": (
        "Operating point: from this probability on an exam is called PNEUMONIA. It was chosen on validation images.",
        "운용점: 확률이 이 값 이상이면 PNEUMONIA로 판정합니다. 검증 영상에서 정한 값입니다.",
    ),
    "legend_borderline": (
        "Borderline: the odds are within a factor of two of those at the operating point. Treat it as undecided.",
        "경계: 오즈(odds)가 운용점의 절반에서 두 배 사이입니다. 판정이 나지 않은 것으로 보십시오.",
    ),
    "legend_unlike": (
        "Unlike training: the image is unlike those the model was trained on. The answer means little.",
        "학습 영상과 다름: 모델이 학습한 영상과 다른 영상입니다. 판정을 믿기 어렵습니다.",
    ),
    "legend_unlike_unchecked": (
        "Whether an image is like those the model was trained on was not checked: the model file does not say.",
        "모델이 학습한 영상과 비슷한지는 확인하지 않았습니다. 모델 파일에 그 정보가 없습니다.",
    ),
    "legend_noted": (
        "See note: the header speaks against a frontal chest radiograph, which is all that the models judge.",
        "참고 사항: 헤더에 정면 흉부 X선 영상이 아니라고 볼 내용이 있습니다. 모델은 정면 흉부 영상만 판정합니다.",
    ),
    "legend_boxes": (
        "Boxes: where the detector finds an opacity, with its score. No box does not mean a healthy chest.",
        "상자: 탐지기가 음영을 찾은 위치와 점수. 상자가 없다고 해서 정상이라는 뜻은 아닙니다.",
    ),
    "keys": ("Keys", "단축키"),
    "keys_move": ("next or previous exam", "다음 또는 이전 검사"),
    "keys_enlarge": ("fill the screen, and back", "전체 화면, 돌아가기"),
    "keys_toggle": ("boxes, Grad-CAM, invert", "상자, Grad-CAM, 흑백 반전"),
    "keys_search": ("go to the filter", "필터로 이동"),
}


def english(key: str, **values: object) -> str:
    """The English text; what the page shows before its script runs."""
    return TEXTS[key][0].format(**values)
