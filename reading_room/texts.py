"""All texts of the worklist's page, in English and Korean; ``{name}`` stands for a value."""

TEXTS: dict[str, tuple[str, str]] = {
    "title": ("Worklist", "워크리스트"),
    "research": ("Research only.", "연구용입니다."),
    "no_device": (
        "Not a medical device: do not base decisions about a patient on this page.",
        "의료기기가 아닙니다. 이 페이지를 근거로 환자에 관한 결정을 내리지 마십시오.",
    ),
    "language": ("Language", "언어"),
    "skip": ("Skip to the list", "목록으로 바로 가기"),
    # models and code
    "made_with": ("Made with", "생성 정보"),
    "classifier": ("Classifier", "분류기"),
    "detector": ("Detector", "탐지기"),
    "no_detector": ("none: no boxes were predicted", "없음: 상자를 예측하지 않았습니다"),
    "operating_point": ("operating point {value}", "운용점 {value}"),
    "boxes_from": ("boxes from score {value}", "점수 {value}부터 상자 표시"),
    "code": ("Code", "코드"),
    "commit": ("commit {value}", "커밋 {value}"),
    "no_commit": ("not a git checkout", "git 저장소가 아님"),
    "written": ("Written", "작성 시각"),
    "watched": (
        "updated by --watch: reload to see new exams",
        "--watch가 계속 갱신합니다. 새로 고치면 새로 들어온 검사가 표시됩니다",
    ),
    "reload": ("Reload every 30 s", "30초마다 새로 고침"),
    # filters
    "filter": ("Filter", "필터"),
    "search": ("Search file, view or date", "파일·촬영 방향·날짜로 검색"),
    "all": ("All", "전체"),
    "above": ("PNEUMONIA", "폐렴 PNEUMONIA"),
    "borderline": ("Borderline", "경계"),
    "ood": ("Out of distribution", "학습 영상과 다름"),
    "noted": ("See note", "참고 사항"),
    "boxed": ("With boxes", "상자 있음"),
    "below": ("NORMAL", "정상 NORMAL"),
    "shown": ("{shown} of {all} exams shown", "검사 {all}건 중 {shown}건 표시"),
    "none_shown": ("No exam matches the filter.", "필터에 맞는 검사가 없습니다."),
    "no_exams": ("No exam has a prediction yet.", "아직 판정 결과가 있는 검사가 없습니다."),
    "sort": ("Sort by", "정렬"),
    # columns
    "exams": ("Exams, most urgent first", "검사 목록, 긴급도 순"),
    "rank": ("Urgency", "긴급도"),
    "film": ("Image", "영상"),
    "probability": ("Probability of PNEUMONIA", "폐렴(PNEUMONIA) 확률"),
    "marks": ("Marks", "표시"),
    "boxes": ("Boxes", "상자"),
    "acquired": ("Acquired", "촬영 일시"),
    "view": ("View", "촬영 방향"),
    "file": ("File", "파일"),
    "patient": ("Patient", "환자"),
    "note": ("Note", "참고 사항"),
    # cells
    "above_point": ("at or above {value}", "{value} 이상"),
    "below_point": ("below {value}", "{value} 미만"),
    "highest": ("highest score {value}", "최고 점수 {value}"),
    "box_count": ("{count}", "{count}개"),
    "study_date": ("study date", "검사 날짜"),
    "unknown": ("not stated", "정보 없음"),
    "no_mark": ("none", "없음"),
    "overlay": ("Show Grad-CAM and boxes on this image", "이 영상에 Grad-CAM과 상자 겹쳐 보기"),
    "enlarge": ("Large view", "크게 보기"),
    "no_picture": ("Image file missing", "영상 파일이 없습니다"),
    # large view
    "previous": ("Previous exam", "이전 검사"),
    "next": ("Next exam", "다음 검사"),
    "close": ("Close the large view", "크게 보기 닫기"),
    "toggle_invert": ("Invert", "흑백 반전"),
    "size": ("Size", "크기"),
    "pixels": ("{width} x {height} pixels", "{width} x {height} 픽셀"),
    "heat_scale": (
        "Grad-CAM: evidence for PNEUMONIA, from none (transparent) to the strongest (yellow)",
        "Grad-CAM: 폐렴(PNEUMONIA) 판정의 근거가 된 영역. 없음(투명)에서 가장 강함(노랑)까지",
    ),
    # files without a prediction
    "failed": ("No prediction", "판정하지 못한 파일"),
    "failed_note": (
        "These files have no prediction and no urgency; any of them may be urgent. Check them yourself.",
        "판정 결과가 없어 긴급도를 알 수 없는 파일입니다. 긴급한 검사일 수도 있으니 직접 확인하십시오.",
    ),
    "reason": ("Reason", "이유"),
    # legend
    "legend": ("How to read this list", "목록 읽는 법"),
    "legend_order": (
        "Order: the calibrated probability of PNEUMONIA, highest first.",
        "순서: 보정된 폐렴(PNEUMONIA) 확률이 높은 것부터.",
    ),
    "legend_order_boxes": ("If equal, by the highest box score.", "확률이 같으면 상자의 최고 점수가 높은 것부터."),
    "legend_point": (
        "Operating point: exams at or above this probability are classified as PNEUMONIA. Chosen on validation images.",
        "운용점(operating point): 확률이 이 값 이상이면 폐렴(PNEUMONIA)으로 판정합니다. 검증 영상에서 정한 값입니다.",
    ),
    "legend_borderline": (
        "Borderline: the odds are within a factor of two of the operating point. Inconclusive (near the threshold).",
        "경계: 오즈(odds)가 운용점의 절반에서 두 배 사이로, 임계값에 가까워 판정을 확정할 수 없습니다.",
    ),
    "legend_ood": (
        "Out of distribution: the image differs from the training images; result unreliable.",
        "학습 영상과 다름(out of distribution): 모델의 학습 영상과 다른 영상이므로 결과를 신뢰할 수 없습니다.",
    ),
    "legend_ood_unstated": (
        "Out-of-distribution images are not flagged: the model file has no statistics of its training images.",
        "학습 영상과 다른 영상을 따로 표시하지 않습니다. 모델 파일에 학습 영상의 통계가 없습니다.",
    ),
    "legend_noted": (
        "See note: according to the header not a frontal chest radiograph; the models are for no other image.",
        "참고 사항: 헤더에 따르면 정면 흉부 X선 영상이 아닙니다. 모델은 정면 흉부 영상만을 대상으로 합니다.",
    ),
    "legend_boxes": (
        "Boxes: opacities predicted by the detector, with their scores. No box does not mean a normal chest.",
        "상자: 탐지기가 예측한 음영의 위치와 점수. 상자가 없다고 해서 정상이라는 뜻은 아닙니다.",
    ),
    "keys": ("Keys", "단축키"),
    "keys_move": ("next or previous exam", "다음 또는 이전 검사"),
    "keys_enlarge": ("fill the screen, and back", "전체 화면, 돌아가기"),
    "keys_toggle": ("boxes, Grad-CAM, invert", "상자, Grad-CAM, 흑백 반전"),
    "keys_search": ("go to the filter", "필터로 이동"),
}


def english(key: str, **values: object) -> str:
    """The English text, which the page shows before its script runs."""
    return TEXTS[key][0].format(**values)
