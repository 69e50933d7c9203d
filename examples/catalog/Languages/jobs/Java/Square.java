class Square {
    public static void main(String[] arguments) {
        long number = Long.parseLong(arguments[0]);
        System.out.println("Java: " + number * number);
    }
}
